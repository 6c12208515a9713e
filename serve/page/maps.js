/** Label maps: PNG files decoded to exact values, which a canvas would round to 8 bits. */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = 0;

/** The bytes that a base64 text stands for. */
export function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index += 1) bytes[index] = text.charCodeAt(index);
  return bytes;
}

/**
 * The values of a PNG file of grey pixels, 8 or 16 bits each, not interlaced.
 * @param {Uint8Array} bytes
 * @returns {Promise<{width: number, height: number, depth: number, values: Uint8Array | Uint16Array}>} row by row
 */
export async function decodeGreyPng(bytes) {
  if (SIGNATURE.some((byte, index) => bytes[index] !== byte)) throw new Error("the label map is no PNG file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts = [];
  let header = null;
  for (let start = SIGNATURE.length; start + 12 <= bytes.length; ) {
    const length = view.getUint32(start);
    const kind = String.fromCharCode(...bytes.subarray(start + 4, start + 8));
    const data = bytes.subarray(start + 8, start + 8 + length);
    if (kind === "IHDR") {
      header = { width: view.getUint32(start + 8), height: view.getUint32(start + 12), depth: data[8], colour: data[9], interlaced: data[12] };
    } else if (kind === "IDAT") {
      parts.push(data);
    }
    start += length + 12;
  }
  if (!header || header.colour !== GREY || ![8, 16].includes(header.depth) || header.interlaced) {
    throw new Error("the label map is not grey with 8 or 16 bits");
  }
  const { width, height, depth } = header;
  const rows = unfiltered(await inflated(parts), (width * depth) / 8, height, depth / 8);
  return { width, height, depth, values: depth === 8 ? rows : wide(rows) };
}

async function inflated(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Undo the filter of each row, which its first byte names; `step` is the bytes of a pixel. */
function unfiltered(data, stride, height, step) {
  const rows = new Uint8Array(stride * height);
  for (let row = 0; row < height; row += 1) {
    const filter = data[row * (stride + 1)];
    const from = row * (stride + 1) + 1;
    const to = row * stride;
    for (let column = 0; column < stride; column += 1) {
      const left = column >= step ? rows[to + column - step] : 0;
      const up = row > 0 ? rows[to + column - stride] : 0;
      const corner = column >= step && row > 0 ? rows[to + column - stride - step] : 0;
      rows[to + column] = data[from + column] + predicted(filter, left, up, corner);
    }
  }
  return rows;
}

function predicted(filter, left, up, corner) {
  switch (filter) {
    case 1: return left;
    case 2: return up;
    case 3: return (left + up) >> 1;
    case 4: {
      const [toLeft, toUp, toCorner] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
      if (toLeft <= toUp && toLeft <= toCorner) return left;
      return toUp <= toCorner ? up : corner;
    }
    default: return 0;
  }
}

/** 16-bit values of big-endian bytes. */
function wide(bytes) {
  const values = new Uint16Array(bytes.length / 2);
  for (let index = 0; index < values.length; index += 1) values[index] = (bytes[2 * index] << 8) | bytes[2 * index + 1];
  return values;
}
