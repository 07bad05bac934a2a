"""MATLAB files: arrays, and networks of MatConvNet with their graphs.

`values` is what a file holds, `level5` and `level73` read its two kinds. `network` finds the
`layers` of a SimpleNN or a DagNN in it, `flow` their order, `module` runs them. `wrapper` keeps
what stands around the tensors, `factors` changes layers as coding did. `reading` and `writing` are
the two ways.
"""
