"""The page. Every view checks its right, calls ``vlm.services`` and draws a template."""
