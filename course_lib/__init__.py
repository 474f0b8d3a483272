"""Pruning ResNets: the library behind the course. Start reading at `resnet.py`."""
