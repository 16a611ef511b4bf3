"""The statistics behind accuracy, promises and insights, in numpy alone.

The room knows neither Django nor DuckDB nor a model: arrays go in, frozen results with ``to_json`` come out.

``draws`` chooses what to look at, each with its chance of being chosen; ``accuracy`` estimates from such labels;
``calibration`` and ``thresholds`` turn them into probabilities and promises that hold; ``agreement`` and ``priors`` compare
answers with each other and with no picture at all; ``slices`` and ``tables`` find what goes together; ``duplicates`` finds
what is nearly the same. ``distributions`` and ``intervals`` are what all of them compute with.
"""
