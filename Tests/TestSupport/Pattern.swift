// Bytes for large bodies: every place has its own value as far as 64 KiB pieces can tell, and nothing has to be kept.

import Glibc

package struct Pattern: Sendable {
    /// A prime, so that no power of two lines up with it.
    private static let period = 65_521
    private let table: [UInt8]
    package private(set) var offset = 0

    package init() {
        var once: [UInt8] = []
        once.reserveCapacity(Self.period)
        for i in 0..<Self.period { once.append(UInt8(truncatingIfNeeded: i ^ (i >> 7) ^ (i >> 11))) }
        table = once + once
    }

    /// The next bytes; at most 64 KiB less some.
    package mutating func next(_ count: Int) -> ArraySlice<UInt8> {
        let start = offset % Self.period
        let n = min(count, Self.period)
        offset += n
        return table[start..<(start + n)]
    }

    /// Whether a piece is what comes next.
    package mutating func matches(_ piece: ArraySlice<UInt8>) -> Bool {
        var rest = piece
        while !rest.isEmpty {
            let mine = next(rest.count)
            let same = unsafe mine.withUnsafeBytes { mine in
                unsafe rest.withUnsafeBytes { unsafe memcmp(mine.baseAddress!, $0.baseAddress!, mine.count) == 0 }
            }
            if !same { return false }
            rest = rest.dropFirst(mine.count)
        }
        return true
    }
}
