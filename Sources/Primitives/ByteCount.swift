/// A number of bytes. Zero or more.
package struct ByteCount: Comparable, Hashable, Sendable, CustomStringConvertible {
    package var bytes: Int

    package init(bytes: Int) { self.bytes = bytes }
    package static func bytes(_ n: Int) -> ByteCount { ByteCount(bytes: n) }
    package static func kibibytes(_ n: Int) -> ByteCount { ByteCount(bytes: n << 10) }
    package static func mebibytes(_ n: Int) -> ByteCount { ByteCount(bytes: n << 20) }

    package static func < (a: ByteCount, b: ByteCount) -> Bool { a.bytes < b.bytes }

    /// The form that configuration files use: `64KiB`.
    package var description: String {
        for (name, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] where bytes != 0 && bytes & ((1 << shift) - 1) == 0 {
            return "\(bytes >> shift)\(name)"
        }
        return "\(bytes)B"
    }
}
