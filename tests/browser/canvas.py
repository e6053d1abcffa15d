"""What a canvas of a page shows, as numbers."""

import base64

import torch
from playwright.sync_api import Page
from torch import Tensor

# As text: a list with a number for each byte would take Playwright seconds.
PIXELS = """(canvas) => {
  const { width, height } = canvas, context = canvas.getContext("2d");
  const { data } = context.getImageData(0, 0, width, height), letters = [];
  for (const byte of data) letters.push(String.fromCharCode(byte));
  return [height, width, btoa(letters.join(""))];
}"""


def pixels(page: Page, number: int) -> Tensor:
    """Canvas `number` of the page, (H, W, 4), 0 to 255."""
    height, width, data = page.locator("canvas").nth(number).evaluate(PIXELS)
    return torch.tensor(list(base64.b64decode(data))).reshape(height, width, 4)
