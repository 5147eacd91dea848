package import Primitives

/// The proxies whose `X-Forwarded-For` is believed.
package struct TrustedProxies: Hashable, Sendable {
    // Blocks nest or are apart. Without those inside others they are apart, and one binary search finds the only
    // candidate: a list of a whole cloud's ranges costs ten comparisons.
    private let v4: [CIDR]
    private let v6: [CIDR]

    package static let nobody = TrustedProxies([])

    package init(_ blocks: [CIDR]) {
        v4 = Self.apart(blocks.filter { $0.base.family == .v4 })
        v6 = Self.apart(blocks.filter { $0.base.family == .v6 })
    }

    /// Whether the address, unmapped, is in one of the blocks.
    package func contains(_ address: IPAddress) -> Bool {
        if v4.isEmpty && v6.isEmpty { return false }
        let address = address.unmapped
        return address.family == .v4 ? Self.search(v4, address) : Self.search(v6, address)
    }

    private static func search(_ blocks: [CIDR], _ address: IPAddress) -> Bool {
        // The last block that starts at or before the address.
        var low = 0
        var high = blocks.count
        while low < high {
            let middle = (low + high) / 2
            if precedes(address, blocks[middle].base) { high = middle } else { low = middle + 1 }
        }
        return low > 0 && blocks[low - 1].contains(address)
    }

    private static func apart(_ blocks: [CIDR]) -> [CIDR] {
        let sorted = blocks.sorted {
            $0.base == $1.base ? $0.prefixLength < $1.prefixLength : precedes($0.base, $1.base)
        }
        var kept: [CIDR] = []
        for block in sorted where kept.last?.contains(block.base) != true { kept.append(block) }
        return kept
    }

    private static func precedes(_ a: IPAddress, _ b: IPAddress) -> Bool { (a.high, a.low) < (b.high, b.low) }
}
