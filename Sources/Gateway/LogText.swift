// Bytes of others in our lines.

import LinuxIO
import Primitives

extension ByteBuffer {
    /// A client's bytes must not forge a line or a field: quotes, backslashes and all but printable ASCII are escaped, in a
    /// way that JSON reads too.
    mutating func appendEscaped(_ bytes: Span<UInt8>) {
        var start = 0
        for i in bytes.indices {
            let byte = bytes[i]
            if byte >= 0x20, byte < 0x7f, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\") { continue }
            append(bytes.extracting(start..<i))
            start = i + 1
            if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") {
                append(UInt8(ascii: "\\"))
                append(byte)
            } else {
                append("\\u00")
                append(hexadecimal: UInt64(byte), width: 2)
            }
        }
        append(bytes.extracting(start..<bytes.count))
    }

    // Of buffers that stand in objects, whose bytes cannot be lent by name.

    mutating func append(_ other: borrowing ByteBuffer) { append(other.bytes) }

    mutating func appendEscaped(_ other: borrowing ByteBuffer) { appendEscaped(other.bytes) }

    mutating func appendEscaped(_ other: borrowing ByteBuffer, _ range: Range<Int>) {
        appendEscaped(other.bytes.extracting(range))
    }
}
