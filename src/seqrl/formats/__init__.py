"""Episodes in files and libraries: one reader per format, one rule that cuts, writers, inspection.

`hdf5`, `npz` and `minari_reading` give a `Recording` (recording), `cutting` with `ends` makes `FlatEpisodes` (flat) of
it: what `inspection` shows, `writers` write to `targets`, and `FlatEpisodes.store` hands to training.
"""
