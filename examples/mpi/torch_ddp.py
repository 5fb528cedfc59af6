"""A linear model trained by PyTorch's DistributedDataParallel over the ranks of an MPI job.

    metier run torch_ddp.py:train --kind mpijob --replicas 4

RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are set in every rank; the collectives are Gloo's, no MPI is used.
"""

ROWS = 1200
TRUE = [2.0, -3.0]
BIAS = 0.5


def train(context, steps: int = 120):
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    x, y = rows(rank, size)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x).squeeze(1), y)
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        losses.append(float(total) / size)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    all_weights = [torch.zeros_like(weights) for _ in range(size)]
    dist.all_gather(all_weights, weights)
    dist.destroy_process_group()
    print(f"rank {rank} of {size}: {len(y)} rows, loss {losses[0]:.3f} -> {losses[-1]:.5f}")
    context.log_results(
        {
            "ranks": size,
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "weights": [round(float(w), 5) for w in weights],
            "equal_weights": all(bool(torch.equal(w, weights)) for w in all_weights),
        }
    )


def rows(rank, size):
    """Every size-th row of one made-up table: y = 2 a - 3 b + 0.5 with a little noise."""
    import torch

    torch.manual_seed(1)
    x = torch.randn(ROWS, 2)
    y = x @ torch.tensor(TRUE) + BIAS + 0.01 * torch.randn(ROWS)
    torch.manual_seed(2)  # the same first weights in every rank
    return x[rank::size], y[rank::size]
