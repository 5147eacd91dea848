/// A number of bytes. Zero or more.
public struct ByteCount: Comparable, Hashable, Sendable, CustomStringConvertible {
    public var bytes: Int

    public init(bytes: Int) { self.bytes = bytes }
    public static func bytes(_ n: Int) -> ByteCount { ByteCount(bytes: n) }
    /// Saturates where a shift would lose the upper bits and make a large limit small.
    public static func kibibytes(_ n: Int) -> ByteCount { .scaled(n, 1 << 10) }
    public static func mebibytes(_ n: Int) -> ByteCount { .scaled(n, 1 << 20) }

    private static func scaled(_ n: Int, _ size: Int64) -> ByteCount {
        ByteCount(bytes: Int(clamping: saturatingMultiply(Int64(n), size)))
    }

    public static func < (a: ByteCount, b: ByteCount) -> Bool { a.bytes < b.bytes }

    /// The form that configuration files use: `64KiB`.
    public var description: String {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)]
        for (name, shift) in units where bytes != 0 && bytes & ((1 << shift) - 1) == 0 {
            return "\(bytes >> shift)\(name)"
        }
        return "\(bytes)B"
    }
}
