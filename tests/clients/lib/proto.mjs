/*
 * proto.mjs -- protobuf by field numbers, enough for Hrana: no schema, the test says what it means.
 *
 * Encode: message([1, 'text'], [2, bytes], [3, 5n], [4, 1.5]): a text or bytes is length-delimited,
 * a bigint or boolean a varint, a number a double. Decode: fields(bytes) gives {number: [values]},
 * with bigints for varints, Buffers for bytes and doubles for 64-bit fields.
 */
export function varint(value) {
    const out = [];
    let rest = BigInt.asUintN(64, BigInt(value));
    while (rest > 127n) {
        out.push(Number(rest & 127n) | 128);
        rest >>= 7n;
    }
    out.push(Number(rest));
    return Buffer.from(out);
}

export const zigzag = (value) => (value << 1n) ^ (value >> 63n);
export const unzigzag = (value) => (value >> 1n) ^ -(value & 1n);

export function message(...list) {
    const parts = [];
    for (const [number, value] of list) {
        const wire = (type) => parts.push(varint((number << 3) | type));
        if (typeof value === 'bigint' || typeof value === 'boolean') {
            wire(0);
            parts.push(varint(value));
        } else if (typeof value === 'number') {
            wire(1);
            const bytes = Buffer.alloc(8);
            bytes.writeDoubleLE(value);
            parts.push(bytes);
        } else {
            wire(2);
            const bytes = Buffer.from(value);
            parts.push(varint(bytes.length), bytes);
        }
    }
    return Buffer.concat(parts);
}

function readVarint(bytes, at) {
    let value = 0n;
    let shift = 0n;
    for (;;) {
        if (at >= bytes.length) throw new Error('a varint is cut off');
        const byte = bytes[at++];
        value |= BigInt(byte & 127) << shift;
        if (byte < 128) return [value, at];
        shift += 7n;
    }
}

export function fields(bytes) {
    const out = {};
    let at = 0;
    while (at < bytes.length) {
        let tag, value;
        [tag, at] = readVarint(bytes, at);
        const number = Number(tag >> 3n);
        const wire = Number(tag & 7n);
        if (wire === 0) [value, at] = readVarint(bytes, at);
        else if (wire === 1) {
            value = bytes.readDoubleLE(at);
            at += 8;
        } else if (wire === 2) {
            let size;
            [size, at] = readVarint(bytes, at);
            if (at + Number(size) > bytes.length) throw new Error('a field is cut off');
            value = bytes.subarray(at, at + Number(size));
            at += Number(size);
        } else throw new Error(`wire type ${wire} is not in use`);
        (out[number] ??= []).push(value);
    }
    return out;
}

/* Messages with their lengths in front of them. */
export function delimited(bytes) {
    const out = [];
    let at = 0;
    while (at < bytes.length) {
        let size;
        [size, at] = readVarint(bytes, at);
        if (at + Number(size) > bytes.length) throw new Error('a message is cut off');
        out.push(bytes.subarray(at, at + Number(size)));
        at += Number(size);
    }
    return out;
}
