"""Out of Python: a model's two passes as programs for ONNX Runtime, OpenVINO, `torch.export` and AOTInductor.

    shortcutv2v.export(model, frame, "programs/")      # reference, shortcut, and shortcutv2v.json beside them
    runner = shortcutv2v.runtime.Runner("programs/")   # numpy and the engine alone

The engines are installed with `pip install shortcutv2v[export]` and imported when a program is written.
"""

from shortcutv2v.deploy.exporter import export

__all__ = ["export"]
