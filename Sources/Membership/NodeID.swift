// How nodes are told apart: an id that people choose, and a boot value that tells one run of the process from the next.

import Primitives

/// Why a text is no node id.
package enum NodeIDError: Error, Equatable, Sendable, CustomStringConvertible {
    case empty
    case tooLong(bytes: Int)
    case forbidden(byte: UInt8, offset: Int)

    package var description: String {
        switch self {
        case .empty: "a node id needs at least one character"
        case .tooLong(let bytes): "a node id has at most \(NodeID.bytesMax) characters, this one has \(bytes)"
        case .forbidden(let byte, let offset):
            "a node id consists of A-Z a-z 0-9 . _ - only; byte 0x\(String(byte, radix: 16)) at offset \(offset)"
        }
    }
}

/// The name of a node: 1 to 64 characters of `A-Z a-z 0-9 . _ -`. It stands in Redis keys, in fields behind a `|`, in
/// JSON and in logs, and none of those has to escape it.
package struct NodeID: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// A host name label has at most 63 bytes (RFC 1035 §2.3.4); room for one more.
    package static let bytesMax = 64

    package let text: String

    package init(_ text: some StringProtocol) throws(NodeIDError) {
        let bytes = text.utf8
        if bytes.isEmpty { throw .empty }
        if bytes.count > Self.bytesMax { throw .tooLong(bytes: bytes.count) }
        var offset = 0
        for byte in bytes {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
                offset += 1
            default: throw .forbidden(byte: byte, offset: offset)
            }
        }
        self.text = String(text)
    }

    /// By bytes, so that every node sorts alike.
    package static func < (a: NodeID, b: NodeID) -> Bool { a.text.utf8.lexicographicallyPrecedes(b.text.utf8) }

    package var description: String { text }
}

/// A random value that a process draws when it starts. Two runs under one node id differ in it.
package struct BootID: Hashable, Sendable, CustomStringConvertible {
    package let value: UInt64

    package init(_ value: UInt64) { self.value = value }

    /// Reads exactly what `description` writes: 16 lower-case hexadecimal digits.
    package init?(hex text: String) {
        guard text.utf8.count == 16 else { return nil }
        var value: UInt64 = 0
        for byte in text.utf8 {
            guard let nibble = hexValue(byte), byte < UInt8(ascii: "A") || byte > UInt8(ascii: "F") else { return nil }
            value = value << 4 | UInt64(nibble)
        }
        self.value = value
    }

    package var description: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }
}
