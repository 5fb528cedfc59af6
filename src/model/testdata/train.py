import mlrun
from os import path

def _private(x):
    pass

def train(context, lr: float = 0.1, data: "DataItem" = None, *args, n=3, **kw) -> dict:
    """Trains a model.

    Long text here

    :param lr: learning rate
    :param data: the data
       more text
    :returns: a dict
    """
    return {}

async def later(a, b=[1,2], c='x', d: mlrun.DataItem = {"a": 1}):
    pass

class A:
    def method(self): pass

def other(context,
          p1: int = 1,  # comment
          p2=(1, "a)b"),
):
    """one line"""
