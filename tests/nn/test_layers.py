import pytest
import torch

from backtal.nn.layers import Dropout


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_mean(share, dtype):
    torch.manual_seed(0)
    x = torch.ones(7, 301, 101, dtype=dtype).transpose(0, 2).requires_grad_()
    out = Dropout(share)(x)
    assert out.dtype == dtype
    assert float((out == 0).float().mean()) == pytest.approx(share, abs=0.005)
    kept = out[out > 0]
    assert torch.allclose(kept, torch.tensor(1 / (1 - share)).to(dtype), rtol=0.01)
    out.sum().backward()
    assert torch.equal(x.grad, out)


def test_dropout_follows_the_seed_and_mode():
    x, layer = torch.randn(5, 3), Dropout(0.5)
    torch.manual_seed(1)
    first, second = layer(x), layer(x)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert layer(x[:0]).shape == (0, 3)
