"""The model of torch_ddp.py trained with Horovod over MPI.

    metier run horovod_torch.py:train --kind mpijob --replicas 4

docs/how-to/horovod.md says how to build Horovod.
"""

from torch_ddp import rows


def train(context, steps: int = 120):
    import horovod.torch as hvd
    import torch

    hvd.init()
    x, y = rows(hvd.rank(), hvd.size())
    model = torch.nn.Linear(2, 1)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), named_parameters=model.named_parameters()
    )
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x).squeeze(1), y)
        loss.backward()
        optimizer.step()
        losses.append(float(hvd.allreduce(loss.detach())))
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    all_weights = hvd.allgather(weights.unsqueeze(0))
    print(f"rank {hvd.rank()} of {hvd.size()}: {len(y)} rows, loss {losses[0]:.3f} -> {losses[-1]:.5f}")
    context.log_results(
        {
            "ranks": hvd.size(),
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "weights": [round(float(w), 5) for w in weights],
            "equal_weights": all(bool(torch.equal(w, weights)) for w in all_weights),
        }
    )
