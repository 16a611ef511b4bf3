"""Archives: data sets with all that is known of them in a folder of Parquet files, to be kept, moved, and read back."""
