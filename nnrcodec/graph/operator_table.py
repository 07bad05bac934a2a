"""The allow-list of operators: the only operators a graph may contain.

One statement per line, continued on indented lines::

    namespace.name|name|....overload(kind argument, ..., *, kind keyword=default) -> result

A statement with several names stands for one operator per name. Names and arguments are those of
PyTorch 2.13; ``device``, ``layout``, ``pin_memory`` and ``generator`` are omitted and have their
default. The kinds are those of `nnrcodec.graph.operators`. A default means that the argument may be
omitted; it is never substituted.

Excluded are random operators, operators with side effects other than on tensors, operators that
return uninitialised memory, those whose result depends on the machine, and those that do not check
sizes given beside the tensor. `operator`, `math` and ``sym_*`` entries compute sizes.
"""

TABLE = """
# Convolution and matrix products
aten.conv1d.default(Tensor input, Tensor weight, Tensor? bias=None, SymInt[] stride=[1],
    SymInt[] padding=[0], SymInt[] dilation=[1], SymInt groups=1) -> Tensor
aten.conv1d.padding(Tensor input, Tensor weight, Tensor? bias=None, SymInt[] stride=[1],
    padding padding="valid", SymInt[] dilation=[1], SymInt groups=1) -> Tensor
aten.conv2d.default(Tensor input, Tensor weight, Tensor? bias=None, SymInt[] stride=[1, 1],
    SymInt[] padding=[0, 0], SymInt[] dilation=[1, 1], SymInt groups=1) -> Tensor
aten.conv2d.padding(Tensor input, Tensor weight, Tensor? bias=None, SymInt[] stride=[1, 1],
    padding padding="valid", SymInt[] dilation=[1, 1], SymInt groups=1) -> Tensor
aten.conv3d.default(Tensor input, Tensor weight, Tensor? bias=None, SymInt[] stride=[1, 1, 1],
    SymInt[] padding=[0, 0, 0], SymInt[] dilation=[1, 1, 1], SymInt groups=1) -> Tensor
aten.conv3d.padding(Tensor input, Tensor weight, Tensor? bias=None, SymInt[] stride=[1, 1, 1],
    padding padding="valid", SymInt[] dilation=[1, 1, 1], SymInt groups=1) -> Tensor
aten.conv_transpose1d.default(Tensor input, Tensor weight, Tensor? bias=None, SymInt[] stride=[1],
    SymInt[] padding=[0], SymInt[] output_padding=[0], SymInt groups=1,
    SymInt[] dilation=[1]) -> Tensor
aten.conv_transpose2d.input(Tensor input, Tensor weight, Tensor? bias=None,
    SymInt[] stride=[1, 1], SymInt[] padding=[0, 0], SymInt[] output_padding=[0, 0],
    SymInt groups=1, SymInt[] dilation=[1, 1]) -> Tensor
aten.conv_transpose3d.input(Tensor input, Tensor weight, Tensor? bias=None,
    SymInt[] stride=[1, 1, 1], SymInt[] padding=[0, 0, 0], SymInt[] output_padding=[0, 0, 0],
    SymInt groups=1, SymInt[] dilation=[1, 1, 1]) -> Tensor
aten.convolution.default(Tensor input, Tensor weight, Tensor? bias, SymInt[] stride,
    SymInt[] padding, SymInt[] dilation, bool transposed, SymInt[] output_padding,
    SymInt groups) -> Tensor
aten.linear.default(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor
aten.matmul.default(Tensor self, Tensor other) -> Tensor
aten.mm|bmm.default(Tensor self, Tensor mat2) -> Tensor
aten.mv.default(Tensor self, Tensor vec) -> Tensor
aten.dot.default(Tensor self, Tensor tensor) -> Tensor
aten.addmm.default(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1,
    Scalar alpha=1) -> Tensor
aten.baddbmm|addbmm.default(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1,
    Scalar alpha=1) -> Tensor
aten.bilinear.default(Tensor input1, Tensor input2, Tensor weight, Tensor? bias=None) -> Tensor
aten.einsum.default(equation equation, Tensor[] tensors, *, int[]? path=None) -> Tensor
aten.outer.default(Tensor self, Tensor vec2) -> Tensor
aten._weight_norm.default(Tensor v, Tensor g, int dim=0) -> Tensor
aten.addmv.default(Tensor self, Tensor mat, Tensor vec, *, Scalar beta=1,
    Scalar alpha=1) -> Tensor
aten.addr.default(Tensor self, Tensor vec1, Tensor vec2, *, Scalar beta=1,
    Scalar alpha=1) -> Tensor
aten.inner|kron.default(Tensor self, Tensor other) -> Tensor
aten.tensordot.default(Tensor self, Tensor other, int[] dims_self, int[] dims_other) -> Tensor
aten.cdist.default(Tensor x1, Tensor x2, float p=2., int? compute_mode=None) -> Tensor
aten.pairwise_distance.default(Tensor x1, Tensor x2, float p=2., float eps=1e-06,
    bool keepdim=False) -> Tensor
aten.linalg_inv|linalg_det.default(Tensor A) -> Tensor
aten.inverse|trace.default(Tensor self) -> Tensor
aten.linalg_solve.default(Tensor A, Tensor B, *, bool left=True) -> Tensor
aten.linalg_cholesky.default(Tensor self, *, bool upper=False) -> Tensor
aten.linalg_cross.default(Tensor self, Tensor other, *, int dim=-1) -> Tensor
aten.cross.default(Tensor self, Tensor other, int? dim=None) -> Tensor

# Normalisation
aten.batch_norm.default(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean,
    Tensor? running_var, bool training, float momentum, float eps, bool cudnn_enabled) -> Tensor
aten.instance_norm.default(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean,
    Tensor? running_var, bool use_input_stats, float momentum, float eps,
    bool cudnn_enabled) -> Tensor
aten.layer_norm.default(Tensor input, SymInt[] normalized_shape, Tensor? weight=None,
    Tensor? bias=None, float eps=1e-05, bool cudnn_enable=True) -> Tensor
aten.native_layer_norm.default(Tensor input, SymInt[] normalized_shape, Tensor? weight,
    Tensor? bias, float eps) -> Tensor[]
aten.group_norm.default(Tensor input, int num_groups, Tensor? weight=None, Tensor? bias=None,
    float eps=1e-05, bool cudnn_enabled=True) -> Tensor
aten.rms_norm.default(Tensor input, SymInt[] normalized_shape, Tensor? weight=None,
    float? eps=None) -> Tensor
aten._native_batch_norm_legit_no_training.default(Tensor input, Tensor? weight, Tensor? bias,
    Tensor running_mean, Tensor running_var, float momentum, float eps) -> Tensor[]

# Attention, recurrence, embedding
aten.scaled_dot_product_attention.default(Tensor query, Tensor key, Tensor value,
    Tensor? attn_mask=None, zero dropout_p=0., bool is_causal=False, *, float? scale=None,
    bool enable_gqa=False) -> Tensor
aten.embedding.default(Tensor weight, Tensor indices, SymInt padding_idx=-1,
    bool scale_grad_by_freq=False, bool sparse=False) -> Tensor
aten.one_hot.default(Tensor self, int num_classes=-1) -> Tensor
aten.lstm.input(Tensor input, Tensor[] hx, Tensor[] params, bool has_biases, int num_layers,
    float dropout, false train, bool bidirectional, bool batch_first) -> Tensor[]
aten.gru|rnn_tanh|rnn_relu.input(Tensor input, Tensor hx, Tensor[] params, bool has_biases,
    int num_layers, float dropout, false train, bool bidirectional, bool batch_first) -> Tensor[]
aten.lstm_cell.default(Tensor input, Tensor[] hx, Tensor w_ih, Tensor w_hh, Tensor? b_ih=None,
    Tensor? b_hh=None) -> Tensor[]
aten.gru_cell|rnn_tanh_cell|rnn_relu_cell.default(Tensor input, Tensor hx, Tensor w_ih,
    Tensor w_hh, Tensor? b_ih=None, Tensor? b_hh=None) -> Tensor

# Activation
aten.relu|relu_|relu6|relu6_|selu|selu_|silu|silu_|mish|mish_|hardswish|hardswish_|
    hardsigmoid|hardsigmoid_|sigmoid|sigmoid_|log_sigmoid|tanh|
    tanh_.default(Tensor self) -> Tensor
aten.leaky_relu|leaky_relu_.default(Tensor self, Scalar negative_slope=0.01) -> Tensor
aten.prelu.default(Tensor self, Tensor weight) -> Tensor
aten.rrelu.default(Tensor self, Scalar lower=0.125, Scalar upper=1/3,
    false training=False) -> Tensor
aten.elu|elu_.default(Tensor self, Scalar alpha=1, Scalar scale=1,
    Scalar input_scale=1) -> Tensor
aten.celu|celu_.default(Tensor self, Scalar alpha=1.) -> Tensor
aten.gelu|gelu_.default(Tensor self, *, approximate approximate="none") -> Tensor
aten.hardtanh|hardtanh_.default(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor
aten.hardshrink|softshrink.default(Tensor self, Scalar lambd=0.5) -> Tensor
aten.softplus.default(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor
aten.threshold|threshold_.default(Tensor self, Scalar threshold, Scalar value) -> Tensor
aten.glu.default(Tensor self, int dim=-1) -> Tensor
aten.softmax|log_softmax.int(Tensor self, int dim, dtype? dtype=None) -> Tensor
aten._softmax|_log_softmax.default(Tensor self, int dim, bool half_to_float) -> Tensor
aten.clamp|clamp_.default(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor
aten.clamp.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor
aten.clamp_min|clamp_min_.default(Tensor self, Scalar min) -> Tensor
aten.clamp_max|clamp_max_.default(Tensor self, Scalar max) -> Tensor
aten.clamp_min.Tensor(Tensor self, Tensor min) -> Tensor
aten.clamp_max.Tensor(Tensor self, Tensor max) -> Tensor
aten.dropout|feature_dropout|alpha_dropout|feature_alpha_dropout.default(Tensor input, float p,
    false train) -> Tensor
aten.dropout_.default(Tensor self, float p, false train) -> Tensor
aten._safe_softmax.default(Tensor self, int dim, dtype? dtype=None) -> Tensor

# Pooling
aten.max_pool1d.default(Tensor self, int[] kernel_size, int[] stride=[], int[] padding=[0],
    int[] dilation=[1], bool ceil_mode=False) -> Tensor
aten.max_pool2d|max_pool3d.default(Tensor self, int[] kernel_size, int[] stride=[],
    int[] padding=0, int[] dilation=1, bool ceil_mode=False) -> Tensor
aten.max_pool1d_with_indices.default(Tensor self, int[] kernel_size, int[] stride=[],
    int[] padding=[0], int[] dilation=[1], bool ceil_mode=False) -> Tensor[]
aten.max_pool2d_with_indices|max_pool3d_with_indices.default(Tensor self, int[] kernel_size,
    int[] stride=[], int[] padding=0, int[] dilation=1, bool ceil_mode=False) -> Tensor[]
aten.avg_pool1d.default(Tensor self, int[] kernel_size, int[] stride=[], int[] padding=[0],
    bool ceil_mode=False, bool count_include_pad=True) -> Tensor
aten.avg_pool2d|avg_pool3d.default(Tensor self, int[] kernel_size, int[] stride=[],
    int[] padding=0, bool ceil_mode=False, bool count_include_pad=True,
    int? divisor_override=None) -> Tensor
aten.adaptive_avg_pool1d.default(Tensor self, int[] output_size) -> Tensor
aten.adaptive_avg_pool2d|adaptive_avg_pool3d|_adaptive_avg_pool2d|
    _adaptive_avg_pool3d.default(Tensor self, SymInt[] output_size) -> Tensor
aten.adaptive_max_pool1d|adaptive_max_pool2d|adaptive_max_pool3d.default(Tensor self,
    int[] output_size) -> Tensor[]
aten.max_unpool2d.default(Tensor self, Tensor indices, SymInt[] output_size) -> Tensor
aten.max_unpool3d.default(Tensor self, Tensor indices, SymInt[] output_size, int[] stride,
    int[] padding) -> Tensor

# Resampling and padding
aten.pixel_shuffle.default(Tensor self, int upscale_factor) -> Tensor
aten.pixel_unshuffle.default(Tensor self, int downscale_factor) -> Tensor
aten.channel_shuffle.default(Tensor self, SymInt groups) -> Tensor
aten.upsample_nearest1d|_upsample_nearest_exact1d.default(Tensor self, SymInt[] output_size,
    float? scales=None) -> Tensor
aten.upsample_nearest1d|upsample_nearest2d|upsample_nearest3d|_upsample_nearest_exact1d|
    _upsample_nearest_exact2d|_upsample_nearest_exact3d.vec(Tensor input, SymInt[]? output_size,
    float[]? scale_factors) -> Tensor
aten.upsample_nearest2d|_upsample_nearest_exact2d.default(Tensor self, SymInt[] output_size,
    float? scales_h=None, float? scales_w=None) -> Tensor
aten.upsample_nearest3d|_upsample_nearest_exact3d.default(Tensor self, SymInt[] output_size,
    float? scales_d=None, float? scales_h=None, float? scales_w=None) -> Tensor
aten.upsample_linear1d.default(Tensor self, SymInt[] output_size, bool align_corners,
    float? scales=None) -> Tensor
aten.upsample_linear1d|upsample_bilinear2d|upsample_trilinear3d|upsample_bicubic2d|
    _upsample_bilinear2d_aa|_upsample_bicubic2d_aa.vec(Tensor input, SymInt[]? output_size,
    bool align_corners, float[]? scale_factors) -> Tensor
aten.upsample_bilinear2d|upsample_bicubic2d|_upsample_bilinear2d_aa|
    _upsample_bicubic2d_aa.default(Tensor self, SymInt[] output_size, bool align_corners,
    float? scales_h=None, float? scales_w=None) -> Tensor
aten.upsample_trilinear3d.default(Tensor self, SymInt[] output_size, bool align_corners,
    float? scales_d=None, float? scales_h=None, float? scales_w=None) -> Tensor
aten.grid_sampler|grid_sampler_2d|grid_sampler_3d.default(Tensor input, Tensor grid,
    int interpolation_mode, int padding_mode, bool align_corners) -> Tensor
aten.affine_grid_generator.default(Tensor theta, SymInt[] size, bool align_corners) -> Tensor
aten.pad.default(Tensor self, SymInt[] pad, pad_mode mode="constant", float? value=None) -> Tensor
aten.constant_pad_nd.default(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor
aten.reflection_pad1d|reflection_pad2d|reflection_pad3d|replication_pad1d|replication_pad2d|
    replication_pad3d.default(Tensor self, SymInt[] padding) -> Tensor
aten.im2col.default(Tensor self, int[] kernel_size, int[] dilation, int[] padding,
    int[] stride) -> Tensor
aten.col2im.default(Tensor self, SymInt[] output_size, int[] kernel_size, int[] dilation,
    int[] padding, int[] stride) -> Tensor

# Joining and splitting
aten.cat|concat|concatenate|stack.default(Tensor[] tensors, int dim=0) -> Tensor
aten.hstack|vstack.default(Tensor[] tensors) -> Tensor
aten.split.Tensor(Tensor self, SymInt split_size, int dim=0) -> Tensor[]
aten.split.sizes(Tensor self, SymInt[] split_size, int dim=0) -> Tensor[]
aten.split_with_sizes.default(Tensor self, SymInt[] split_sizes, int dim=0) -> Tensor[]
aten.chunk.default(Tensor self, int chunks, int dim=0) -> Tensor[]
aten.tensor_split.sections(Tensor self, SymInt sections, int dim=0) -> Tensor[]
aten.tensor_split.indices(Tensor self, SymInt[] indices, int dim=0) -> Tensor[]
aten.unbind.int(Tensor self, int dim=0) -> Tensor[]
aten.meshgrid|broadcast_tensors.default(Tensor[] tensors) -> Tensor[]
aten.meshgrid.indexing(Tensor[] tensors, *, indexing indexing) -> Tensor[]
aten.select.int(Tensor self, int dim, SymInt index) -> Tensor
aten.slice.Tensor(Tensor self, int dim=0, SymInt? start=None, SymInt? end=None,
    SymInt step=1) -> Tensor
aten.narrow.default(Tensor self, int dim, SymInt start, SymInt length) -> Tensor
aten.index_select.default(Tensor self, int dim, Tensor index) -> Tensor
aten.gather.default(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor
aten.index.Tensor(Tensor self, Tensor?[] indices) -> Tensor
aten.take_along_dim.default(Tensor self, Tensor indices, int? dim=None) -> Tensor
aten.scatter.src(Tensor self, int dim, Tensor index, Tensor src) -> Tensor
aten.scatter.value(Tensor self, int dim, Tensor index, Scalar value) -> Tensor
aten.scatter_add.default(Tensor self, int dim, Tensor index, Tensor src) -> Tensor
aten.index_add.default(Tensor self, int dim, Tensor index, Tensor source, *,
    Scalar alpha=1) -> Tensor
aten.index_put|index_put_.default(Tensor self, Tensor?[] indices, Tensor values,
    bool accumulate=False) -> Tensor
aten.slice_scatter.default(Tensor self, Tensor src, int dim=0, SymInt? start=None,
    SymInt? end=None, SymInt step=1) -> Tensor
aten.select_scatter.default(Tensor self, Tensor src, int dim, SymInt index) -> Tensor
aten.copy_.default(Tensor self, Tensor src, bool non_blocking=False) -> Tensor
aten.fill_.Scalar(Tensor self, Scalar value) -> Tensor
aten.fill_.Tensor(Tensor self, Tensor value) -> Tensor
aten.zero_.default(Tensor self) -> Tensor
aten.masked_fill|masked_fill_.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor
aten.masked_fill|masked_fill_.Tensor(Tensor self, Tensor mask, Tensor value) -> Tensor
aten.where.self(Tensor condition, Tensor self, Tensor other) -> Tensor
aten.where.ScalarOther(Tensor condition, Tensor self, Scalar other) -> Tensor
aten.where.ScalarSelf(Tensor condition, Scalar self, Tensor other) -> Tensor
aten.where.Scalar(Tensor condition, Scalar self, Scalar other) -> Tensor
aten.dstack|column_stack.default(Tensor[] tensors) -> Tensor
aten.scatter_add_.default(Tensor self, int dim, Tensor index, Tensor src) -> Tensor
aten.scatter_.src(Tensor self, int dim, Tensor index, Tensor src) -> Tensor
aten.scatter_.value(Tensor self, int dim, Tensor index, Scalar value) -> Tensor
aten.scatter_reduce|scatter_reduce_.two(Tensor self, int dim, Tensor index, Tensor src,
    reduce reduce, *, bool include_self=True) -> Tensor
aten.index_add_.default(Tensor self, int dim, Tensor index, Tensor source, *,
    Scalar alpha=1) -> Tensor
aten.index_copy.default(Tensor self, int dim, Tensor index, Tensor source) -> Tensor

# Shape
aten.view|_unsafe_view.default(Tensor self, SymInt[] size) -> Tensor
aten.view_as|reshape_as|expand_as.default(Tensor self, Tensor other) -> Tensor
aten.reshape.default(Tensor self, SymInt[] shape) -> Tensor
aten.flatten.using_ints(Tensor self, int start_dim=0, int end_dim=-1) -> Tensor
aten.unflatten.int(Tensor self, int dim, SymInt[] sizes) -> Tensor
aten.permute|flip.default(Tensor self, int[] dims) -> Tensor
aten.transpose.int(Tensor self, int dim0, int dim1) -> Tensor
aten.t|numpy_T|mT|adjoint|squeeze|alias|detach|detach_|lift_fresh_copy|
    lift_fresh.default(Tensor self) -> Tensor
aten.swapaxes.default(Tensor self, int axis0, int axis1) -> Tensor
aten.swapdims.default(Tensor self, int dim0, int dim1) -> Tensor
aten.movedim|moveaxis.int(Tensor self, int source, int destination) -> Tensor
aten.moveaxis|movedim.intlist(Tensor self, int[] source, int[] destination) -> Tensor
aten.squeeze|squeeze_.dim(Tensor self, int dim) -> Tensor
aten.squeeze.dims(Tensor self, int[] dim) -> Tensor
aten.unsqueeze|unsqueeze_.default(Tensor self, int dim) -> Tensor
aten.expand.default(Tensor self, SymInt[] size, *, bool implicit=False) -> Tensor
aten.repeat.default(Tensor self, SymInt[] repeats) -> Tensor
aten.repeat_interleave.self_int(Tensor self, SymInt repeats, int? dim=None, *,
    SymInt? output_size=None) -> Tensor
aten.tile.default(Tensor self, SymInt[] dims) -> Tensor
aten.contiguous.default(Tensor self, *, memory_format memory_format=contiguous_format) -> Tensor
aten.clone.default(Tensor self, *, memory_format? memory_format=None) -> Tensor
aten.roll.default(Tensor self, SymInt[] shifts, int[] dims=[]) -> Tensor
aten.rot90.default(Tensor self, int k=1, int[] dims=[0, 1]) -> Tensor
aten.diagonal.default(Tensor self, int offset=0, int dim1=0, int dim2=1) -> Tensor
aten.diag_embed.default(Tensor self, int offset=0, int dim1=-2, int dim2=-1) -> Tensor
aten.unfold.default(Tensor self, int dimension, int size, int step) -> Tensor
aten.sym_size.int(Tensor self, int dim) -> Scalar
aten.sym_numel.default(Tensor self) -> Scalar
aten.ravel|atleast_1d|atleast_2d|atleast_3d.default(Tensor self) -> Tensor
aten.diag.default(Tensor self, int diagonal=0) -> Tensor

# Arithmetic
aten.add|add_|sub|sub_|rsub|subtract.Tensor(Tensor self, Operand other, *,
    Scalar alpha=1) -> Tensor
aten.add|sub|rsub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor
aten.mul|mul_|multiply|div|div_|true_divide|divide|remainder|fmod|eq|ne|lt|le|gt|ge|
    bitwise_and|bitwise_or|bitwise_xor|__and__|__or__|__xor__.Tensor(Tensor self,
    Operand other) -> Tensor
aten.mul|div|floor_divide|remainder|fmod|eq|ne|lt|le|gt|ge|bitwise_and|bitwise_or|
    bitwise_xor.Scalar(Tensor self, Scalar other) -> Tensor
aten.div.Tensor_mode(Tensor self, Operand other, *, rounding_mode? rounding_mode) -> Tensor
aten.div.Scalar_mode(Tensor self, Scalar other, *, rounding_mode? rounding_mode) -> Tensor
aten.floor_divide|atan2|maximum|minimum|fmax|fmin|hypot|logaddexp|logical_and|logical_or|
    logical_xor.default(Tensor self, Operand other) -> Tensor
aten.pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor
aten.pow.Tensor_Tensor(Tensor self, Operand exponent) -> Tensor
aten.pow.Scalar(Scalar self, Operand exponent) -> Tensor
aten.pow_.Scalar(Tensor self, Scalar exponent) -> Tensor
aten.square|neg|neg_|negative|abs|abs_|absolute|sign|sgn|sqrt|sqrt_|rsqrt|rsqrt_|exp|
    exp_|exp2|expm1|log|log2|log10|log1p|sin|cos|tan|asin|acos|atan|sinh|cosh|
    asinh|acosh|atanh|erf|erfc|reciprocal|reciprocal_|floor|ceil|round|trunc|frac|
    isnan|isinf|isfinite|logical_not|bitwise_not.default(Tensor self) -> Tensor
aten.round.decimals(Tensor self, *, int decimals) -> Tensor
aten.max|min.other(Tensor self, Operand other) -> Tensor
aten.lerp.Scalar(Tensor self, Tensor end, Scalar weight) -> Tensor
aten.lerp.Tensor(Tensor self, Tensor end, Tensor weight) -> Tensor
aten.addcmul|addcdiv.default(Tensor self, Operand tensor1, Operand tensor2, *,
    Scalar value=1) -> Tensor
aten.nan_to_num.default(Tensor self, float? nan=None, float? posinf=None,
    float? neginf=None) -> Tensor
aten.logit.default(Tensor self, float? eps=None) -> Tensor
aten.bitwise_left_shift|bitwise_right_shift.Tensor_Scalar(Tensor self, Scalar other) -> Tensor
aten.diff.default(Tensor self, int n=1, int dim=-1, Tensor? prepend=None,
    Tensor? append=None) -> Tensor
aten.erfinv|sinc|lgamma|digamma|floor_|ceil_|round_|trunc_|sin_|cos_|log_|log1p_|expm1_|square_|
    isposinf|isneginf|signbit.default(Tensor self) -> Tensor
aten.xlogy|copysign.Tensor(Tensor self, Operand other) -> Tensor
aten.clamp_.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor
aten.isclose.default(Tensor self, Tensor other, float rtol=1e-05, float atol=1e-08,
    bool equal_nan=False) -> Tensor

# Reduction
aten.mean|sum|prod.default(Tensor self, *, dtype? dtype=None) -> Tensor
aten.mean.dim(Tensor self, int[]? dim, bool keepdim=False, *, dtype? dtype=None) -> Tensor
aten.sum.dim_IntList(Tensor self, int[]? dim, bool keepdim=False, *, dtype? dtype=None) -> Tensor
aten.prod.dim_int(Tensor self, int dim, bool keepdim=False, *, dtype? dtype=None) -> Tensor
aten.amax|amin.default(Tensor self, int[] dim=[], bool keepdim=False) -> Tensor
aten.aminmax.default(Tensor self, *, int? dim=None, bool keepdim=False) -> Tensor[]
aten.max|min|median|any|all.default(Tensor self) -> Tensor
aten.max|min|median.dim(Tensor self, int dim, bool keepdim=False) -> Tensor[]
aten.argmax|argmin.default(Tensor self, int? dim=None, bool keepdim=False) -> Tensor
aten.logsumexp.default(Tensor self, int[] dim, bool keepdim=False) -> Tensor
aten.var|std.default(Tensor self, bool unbiased=True) -> Tensor
aten.var|std.dim(Tensor self, int[]? dim, bool unbiased=True, bool keepdim=False) -> Tensor
aten.var|std.correction(Tensor self, int[]? dim=None, *, Scalar? correction=None,
    bool keepdim=False) -> Tensor
aten.var_mean|std_mean.correction(Tensor self, int[]? dim=None, *, Scalar? correction=None,
    bool keepdim=False) -> Tensor[]
aten.cumsum|cumprod.default(Tensor self, int dim, *, dtype? dtype=None) -> Tensor
aten.norm.Scalar(Tensor self, Scalar p=2) -> Tensor
aten.norm.ScalarOpt_dim(Tensor self, Scalar? p, int[] dim, bool keepdim=False) -> Tensor
aten.linalg_vector_norm.default(Tensor self, Scalar ord=2, int[]? dim=None, bool keepdim=False, *,
    dtype? dtype=None) -> Tensor
aten.any|all.dim(Tensor self, int dim, bool keepdim=False) -> Tensor
aten.topk.default(Tensor self, SymInt k, int dim=-1, bool largest=True,
    bool sorted=True) -> Tensor[]
aten.sort.default(Tensor self, int dim=-1, bool descending=False) -> Tensor[]
aten.argsort.default(Tensor self, int dim=-1, bool descending=False) -> Tensor
aten.bucketize.Tensor(Tensor self, Tensor boundaries, *, bool out_int32=False,
    bool right=False) -> Tensor
aten.searchsorted.Tensor(Tensor sorted_sequence, Tensor self, *, bool out_int32=False,
    bool right=False, side? side=None, Tensor? sorter=None) -> Tensor
aten.cosine_similarity.default(Tensor x1, Tensor x2, int dim=1, float eps=1e-08) -> Tensor
aten.histc.default(Tensor self, int bins=100, Scalar min=0, Scalar max=0) -> Tensor
aten.cummax|cummin.default(Tensor self, int dim) -> Tensor[]
aten.logcumsumexp.default(Tensor self, int dim) -> Tensor
aten.quantile.default(Tensor self, Tensor q, int? dim=None, bool keepdim=False, *,
    quantile_interpolation interpolation="linear") -> Tensor
aten.quantile.scalar(Tensor self, float q, int? dim=None, bool keepdim=False, *,
    quantile_interpolation interpolation="linear") -> Tensor
aten.kthvalue.default(Tensor self, SymInt k, int dim=-1, bool keepdim=False) -> Tensor[]
aten.count_nonzero.default(Tensor self, int? dim=None) -> Tensor
aten.count_nonzero.dim_IntList(Tensor self, int[] dim) -> Tensor

# Transforms, with complex numbers in between
aten.fft_fft|fft_ifft|fft_rfft|fft_irfft.default(Tensor self, SymInt? n=None, int dim=-1,
    fft_norm? norm=None) -> Tensor
aten.fft_fft2|fft_ifft2|fft_rfft2|fft_irfft2.default(Tensor self, SymInt[]? s=None,
    int[] dim=[-2, -1], fft_norm? norm=None) -> Tensor
aten.fft_fftn|fft_ifftn|fft_rfftn|fft_irfftn.default(Tensor self, SymInt[]? s=None,
    int[]? dim=None, fft_norm? norm=None) -> Tensor
aten.fft_fftshift|fft_ifftshift.default(Tensor self, int[]? dim=None) -> Tensor
aten.stft.default(Tensor self, int n_fft, int? hop_length=None, int? win_length=None,
    Tensor? window=None, bool normalized=False, bool? onesided=None, bool? return_complex=None,
    bool? align_to_window=None) -> Tensor
aten.istft.default(Tensor self, int n_fft, int? hop_length=None, int? win_length=None,
    Tensor? window=None, bool center=True, bool normalized=False, bool? onesided=None,
    int? length=None, bool return_complex=False) -> Tensor
aten.view_as_real|view_as_complex|real|imag|angle|conj|resolve_conj|
    _conj.default(Tensor self) -> Tensor
aten.complex.default(Tensor real, Tensor imag) -> Tensor
aten.polar.default(Tensor abs, Tensor angle) -> Tensor

# Making tensors and casting
aten.arange.default(Scalar end, *, dtype? dtype=None) -> Tensor
aten.arange.start(Scalar start, Scalar end, *, dtype? dtype=None) -> Tensor
aten.arange.start_step(Scalar start, Scalar end, Scalar step=1, *, dtype? dtype=None) -> Tensor
aten.linspace.default(Scalar start, Scalar end, int steps, *, dtype? dtype=None) -> Tensor
aten.zeros|ones.default(SymInt[] size, *, dtype? dtype=None) -> Tensor
aten.full.default(SymInt[] size, Scalar fill_value, *, dtype? dtype=None) -> Tensor
aten.eye.default(SymInt n, *, dtype? dtype=None) -> Tensor
aten.scalar_tensor.default(Scalar s, *, dtype? dtype=None) -> Tensor
aten.zeros_like|ones_like.default(Tensor self, *, dtype? dtype=None,
    memory_format? memory_format=None) -> Tensor
aten.full_like.default(Tensor self, Scalar fill_value, *, dtype? dtype=None,
    memory_format? memory_format=None) -> Tensor
aten.new_zeros|new_ones.default(Tensor self, SymInt[] size, *, dtype? dtype=None) -> Tensor
aten.new_full.default(Tensor self, SymInt[] size, Scalar fill_value, *,
    dtype? dtype=None) -> Tensor
aten.to.dtype(Tensor self, dtype dtype, bool non_blocking=False, bool copy=False,
    memory_format? memory_format=None) -> Tensor
aten.to.dtype_layout(Tensor self, *, dtype? dtype=None, bool non_blocking=False, bool copy=False,
    memory_format? memory_format=None) -> Tensor
aten.to.other(Tensor self, Tensor other, bool non_blocking=False, bool copy=False,
    memory_format? memory_format=None) -> Tensor
aten._to_copy.default(Tensor self, *, dtype? dtype=None, bool non_blocking=False,
    memory_format? memory_format=None) -> Tensor
aten.type_as.default(Tensor self, Tensor other) -> Tensor
aten.triu|tril.default(Tensor self, SymInt diagonal=0) -> Tensor
aten.hann_window|hamming_window|blackman_window.default(int window_length, *,
    dtype? dtype=None) -> Tensor
aten.hann_window|hamming_window|blackman_window.periodic(int window_length, bool periodic, *,
    dtype? dtype=None) -> Tensor

# Numbers and lists
operator.getitem(Tensor[] self, int index) -> Tensor
operator.add|sub|mul|truediv|floordiv|mod|eq|ne|lt|le|gt|ge(Scalar a, Scalar b) -> Scalar
operator.neg|pos(Scalar a) -> Scalar
math.trunc|floor|ceil(Scalar a) -> Scalar
torch.sym_max|sym_min(Scalar a, Scalar b) -> Scalar
torch.sym_int|sym_float|sym_not(Scalar a) -> Scalar
torch.sym_ite(Scalar b, Scalar t, Scalar f) -> Scalar
"""
