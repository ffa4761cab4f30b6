"""Episodes in memory and on disk, and the tensors made of them; no file formats but our own.

`episodes` is the one record that everything trains on. Below it: `building` makes its fields of arrays or lists,
`checks` refuses what does not fit, `gathered_rows` stands for copies in subsets and mixes, `array_folder` saves and
maps arrays. Above it: `returns`, `windows` and `order` say what a step sees, `cache` and `token_cache` keep what
takes long to make.
"""
