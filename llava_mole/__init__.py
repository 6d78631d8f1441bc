from llava_mole import _torchvision

_torchvision.ensure_importable()
