"""Windows instead of whole frames, for teachers that look at a small surrounding of each place.

stream = model.stream(windows=True)             # or Windows(size=64, halo=6, rolling=0.1)
output = stream(frame)                          # computes the windows that need it
print(stream.locality, stream.summary())        # the price of a halo in dB; what became of the windows
"""

from shortcutv2v.windows.locality import Locality
from shortcutv2v.windows.settings import Windows
from shortcutv2v.windows.stream import WindowStream
from shortcutv2v.windows.tiles import Grid

__all__ = ["Grid", "Locality", "WindowStream", "Windows"]
