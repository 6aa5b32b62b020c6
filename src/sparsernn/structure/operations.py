"""Names of torch operations by what they do to channels. What is in none of these tables is not followed."""

from .channels import Because

# Results that depend on shapes, types and devices only: no value of a tensor enters them.
VALUE_FREE = frozenset(
    """size dim ndimension numel nelement stride storage_offset element_size is_contiguous is_floating_point is_complex
    is_signed is_inference is_pinned get_device __len__ has_names is_same_size data_ptr untyped_storage
    is_tensor is_set_to is_coalesced result_type can_cast is_conj is_neg is_shared retains_grad is_nonzero_shape
    shape.get dtype.get device.get ndim.get is_cuda.get is_cpu.get is_mps.get is_xpu.get is_xla.get
    is_sparse.get is_sparse_csr.get is_quantized.get is_nested.get is_meta.get is_mkldnn.get is_leaf.get
    requires_grad.get grad_fn.get grad.get layout.get names.get itemsize.get nbytes.get _base.get output_nr.get
    _version.get is_vulkan.get is_maia.get is_mtia.get is_ipu.get retains_grad.get name.get requires_grad.set
    new zeros ones empty full arange range linspace logspace eye tril_indices triu_indices zeros_like ones_like
    empty_like rand_like randn_like randint_like new_zeros new_ones new_empty rand randn randint randperm
    empty_strided new_empty_strided manual_seed seed _set_grad_enabled get_default_dtype set_default_dtype
    full_like new_full hann_window hamming_window register_hook retain_grad __hash__ _is_view broadcast_shapes
    broadcast_tensors_shape _has_compatible_shallow_copy_type""".split()
)
ZEROS = frozenset(["zeros", "zeros_like", "new_zeros"])

# The same elements in another order or shape. "FIRST": the first argument is moved; others are indices or sizes.
MOVE_FIRST = frozenset(
    """view reshape view_as reshape_as transpose permute t swapaxes swapdims movedim moveaxis T.get mT.get H.get mH.get
    adjoint getitem __getitem__ gather index_select select narrow narrow_copy take_along_dim squeeze unsqueeze
    expand expand_as broadcast_to repeat repeat_interleave tile flatten unflatten ravel chunk split
    split_with_sizes tensor_split hsplit vsplit dsplit unbind __iter__ flip fliplr flipud roll rot90 unfold
    diagonal _pack_padded_sequence squeeze_ unsqueeze_ transpose_ t_ swapaxes_ view_copy masked_select __reversed__
    unsafe_chunk unsafe_split pixel_shuffle pixel_unshuffle channel_shuffle fft_fftshift
    fft_ifftshift atleast_1d atleast_2d atleast_3d tril triu""".split()
)
MOVE_LIST = frozenset(
    """cat concat concatenate stack hstack vstack dstack column_stack row_stack pad_sequence""".split()
)

# One tensor in, the same shape out, zero stays zero.
UNARY_ZERO = frozenset(
    """neg negative positive __neg__ __pos__ tanh relu relu6 gelu silu mish elu selu celu leaky_relu hardswish softsign
    tanhshrink softshrink hardshrink abs absolute __abs__ sqrt square sign sgn sin tan asin arcsin atan arctan
    sinh asinh arctanh atanh expm1 log1p erf floor ceil round trunc fix frac dropout dropout1d dropout2d
    dropout3d feature_dropout to type float double half bfloat16 int long short bool cpu cuda clone contiguous
    detach requires_grad_ data.get type_as nan_to_num deg2rad rad2deg pin_memory share_memory_ native_dropout
    __deepcopy__
    real real.get imag imag.get angle conj
    alias as_subclass rename align_to refine_names resolve_conj resolve_neg""".split()
)
UNARY = frozenset(
    """sigmoid hardsigmoid logsigmoid log_sigmoid exp exp2 cos cosh acos acosh arccos log log2 log10 softplus
    reciprocal rsqrt bucketize
    clamp clip clamp_min clamp_max threshold hardtanh logical_not bitwise_not __invert__ alpha_dropout
    feature_alpha_dropout rrelu logit erfc erfinv lgamma digamma sinc
    special_expit bernoulli""".split()
)

MAGNITUDES = frozenset("abs absolute __abs__ square relu".split())
# Zero stays zero where it lies within the bounds: (lower, upper) by the positions and names of the arguments.
BOUNDS = {
    **dict.fromkeys(["clamp", "clip"], ("min", "max")),
    "clamp_min": ("min", ""),
    "clamp_max": ("", "max"),
    "hardtanh": ("min_val", "max_val"),
}

# Several tensors, broadcast, element by element; zero stays zero if the labelled operand is zero.
ELEMENTWISE_ZERO = frozenset(
    """mul multiply __mul__ __rmul__ __imul__ div divide true_divide __truediv__ __itruediv__ __div__
    __idiv__""".split()
)
ELEMENTWISE = frozenset(
    """add subtract sub rsub __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __rtruediv__ __rdiv__ floor_divide
    __floordiv__ __rfloordiv__ remainder fmod __mod__ __rmod__ pow __pow__ __rpow__ float_power maximum minimum
    fmax fmin where lerp addcmul addcdiv masked_fill eq ne gt ge lt le not_equal greater greater_equal less less_equal
    __eq__ __ne__ __gt__ __ge__ __lt__ __le__ logical_and logical_or logical_xor __and__ __or__ __xor__ __rand__ __ror__
    __rxor__ __iand__ __ior__ bitwise_and bitwise_or bitwise_xor atan2 arctan2 hypot logaddexp copysign isclose
    heaviside xlogy prelu complex polar""".split()
)

# Reductions, statistics and scans along axes: channels pass where they agree along the axes. The number is the
# position of the axis argument.
FFT_OF_SEVERAL = frozenset(
    f"fft_{inverse}{kind}fft{axes}" for inverse in ("", "i") for kind in ("", "r", "h") for axes in ("2", "n")
)
REDUCE = {
    **dict.fromkeys(
        """sum mean amax amin max min median nanmedian mode prod logsumexp any all std var nansum nanmean argmax argmin
    count_nonzero aminmax std_mean var_mean""".split(),
        1,
    ),
    "norm": 2,
    **dict.fromkeys("vector_norm linalg_norm linalg_vector_norm frobenius_norm".split(), 2),
    **dict.fromkeys("quantile nanquantile kthvalue".split(), 2),
    **dict.fromkeys("trapz trapezoid".split(), 9),
}
ALONG = {
    **dict.fromkeys(
        """softmax log_softmax softmin cumsum cumprod cummax cummin sort argsort logcumsumexp flip_along""".split(), 1
    ),
    "normalize": 2,
    **dict.fromkeys("topk diff fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft".split(), 2),
    **dict.fromkeys(FFT_OF_SEVERAL, 2),
    "gumbel_softmax": 4,
    "msort": 9,  # along the first axis
    **dict.fromkeys("cumulative_trapezoid gradient renorm".split(), 9),  # by keyword alone, or by a rule of its own
}
STATISTICS = frozenset(["layer_norm", "rms_norm", "local_response_norm"])

# Pooling over the last axes (how many), the channels in front of them pass.
POOL = {
    **dict.fromkeys(["max_pool1d", "avg_pool1d", "adaptive_avg_pool1d", "adaptive_max_pool1d", "lp_pool1d"], 1),
    **dict.fromkeys(["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "lp_pool2d"], 2),
    **dict.fromkeys(["max_pool3d", "avg_pool3d", "adaptive_avg_pool3d", "adaptive_max_pool3d", "lp_pool3d"], 3),
    **{f"{kind}max_pool{n}d_with_indices": n for kind in ("", "adaptive_", "fractional_") for n in (1, 2, 3)},
    **{f"{kind}{n}d": n for kind in ("fractional_max_pool", "max_unpool") for n in (2, 3)},
    "max_unpool1d": 1,
    "boolean_dispatch": 1,
}

# Operations on all units at once: why the units stay.
WHOLE = {
    "multi_head_attention_forward": (
        "nn.MultiheadAttention, which keeps one width for queries and results",
        Because.NOT_FOLLOWED,
    ),
    **dict.fromkeys("pairwise_distance cdist dist pdist".split(), ("a distance over all units", Because.MEANING)),
    "cosine_similarity": ("a cosine over all units", Because.MEANING),
    **dict.fromkeys(
        """mse_loss l1_loss smooth_l1_loss huber_loss cross_entropy nll_loss binary_cross_entropy kl_div
        binary_cross_entropy_with_logits cosine_embedding_loss triplet_margin_loss
        gaussian_nll_loss ctc_loss""".split(),
        ("a loss over all units", Because.MEANING),
    ),
}

# A tensor's value leaves for Python: nothing can be said about what it does there.
TO_PYTHON = frozenset(
    """item tolist numpy __float__ __int__ __bool__ __index__ __complex__ __array__ __contains__ equal allclose
    is_nonzero __format__ __repr__ __str__ __dlpack__ __cuda_array_interface__.get""".split()
)

# What is promised is promised for finite values: there the answer is always the same.
# (Distributions ask `_is_all_true` of their arguments, to raise where one is out of range.)
FINITE = frozenset("isnan isinf isfinite isposinf isneginf _is_all_true".split())
# Comparisons that say nothing where a unit is compared with itself.
ALIKE = frozenset("equal allclose eq __eq__ isclose".split())
SILENT = frozenset(["__repr__", "__str__", "__format__"])  # showing a value changes no result
