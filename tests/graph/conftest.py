import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread_and_plain_attention():
    """Compare with modules that use the operators that an export sees, not the fused ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)
    torch.set_num_threads(threads)
