"""The maths: arrays and numbers in, new arrays out. No xarray, dask or files here."""
