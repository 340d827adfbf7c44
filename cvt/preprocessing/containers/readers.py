"""Which formats are read with more care than Pillow alone has."""

from collections.abc import Callable, Mapping

from PIL import Image

from cvt.preprocessing.containers.frames.first import open_avif, open_gif, open_webp
from cvt.preprocessing.containers.frames.heif import is_heif, open_heif
from cvt.preprocessing.containers.frames.jxl import is_jxl, open_jxl
from cvt.preprocessing.containers.icons import open_icns, open_ico
from cvt.preprocessing.containers.jpeg import open_jpeg
from cvt.preprocessing.containers.jpeg2000.reader import open_jpeg2000
from cvt.preprocessing.containers.png import open_png
from cvt.preprocessing.containers.rasters.blp import open_blp
from cvt.preprocessing.containers.rasters.bmp import open_bmp
from cvt.preprocessing.containers.rasters.fits import open_fits
from cvt.preprocessing.containers.rasters.ppm import open_ppm
from cvt.preprocessing.containers.rasters.psd import open_psd
from cvt.preprocessing.containers.rasters.sgi import open_sgi
from cvt.preprocessing.containers.rasters.sun import open_sun
from cvt.preprocessing.containers.rasters.tga import open_tga
from cvt.preprocessing.containers.rasters.xpm import open_xbm, open_xpm
from cvt.preprocessing.containers.tiff.reader import open_tiff

READERS: Mapping[str, Callable[[bytes, int], Image.Image]] = {
    "AVIF": open_avif,
    "BLP": open_blp,
    "BMP": open_bmp,
    "CUR": open_ico,
    "FITS": open_fits,
    "GIF": open_gif,
    "HEIF": open_heif,
    "ICNS": open_icns,
    "ICO": open_ico,
    "JPEG": open_jpeg,
    "JPEG2000": open_jpeg2000,
    "JXL": open_jxl,
    "PNG": open_png,
    "PPM": open_ppm,
    "PSD": open_psd,
    "SGI": open_sgi,
    "SUN": open_sun,
    "TGA": open_tga,
    "TIFF": open_tiff,
    "WEBP": open_webp,
    "XBM": open_xbm,
    "XPM": open_xpm,
}
"""By Pillow's name of the format: (data, max_pixels) to an image with its header read.

They raise what Pillow raises, or the ImageDecodeError that says it better.
"""

BEYOND_PILLOW: Mapping[str, Callable[[bytes], bool]] = {"HEIF": is_heif, "JXL": is_jxl}
"""Formats that other packages decode, and by what they are recognised."""
