# SPDX-License-Identifier: Apache-2.0
"""Photographs for the vision tower."""

import importlib.util
import pathlib

from PIL import Image, ImageOps, UnidentifiedImageError

from qvlmem.commands import CommandError


def default_photograph():
    """The path of a photograph that lies in scikit-image's wheel: a cup of coffee, 600 x 400."""
    found = importlib.util.find_spec('skimage')
    if found is None:
        raise CommandError('the default photograph is scikit-image\'s, which is not installed; '
                           'name one with --image')
    return pathlib.Path(found.origin).parent / 'data' / 'coffee.png'


def open_photograph(path):
    """The image at `path`, RGB, upright, read to its end. Raises CommandError where that fails."""
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image).convert('RGB')
    except UnidentifiedImageError:
        raise CommandError(f'{path} is not an image that Pillow can read') from None
    except Image.DecompressionBombError as error:
        raise CommandError(f'{path}: {error}') from None
    except (OSError, SyntaxError, ValueError) as error:
        # Pillow reports damage inside a file as any of these; only the system's have an errno.
        reason = getattr(error, 'strerror', None)
        if reason:
            raise CommandError(f'cannot read the image {path}: {reason}') from None
        raise CommandError(f'the image {path} is damaged or cut short: {error}') from None
