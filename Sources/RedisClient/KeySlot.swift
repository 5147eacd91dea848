// Which slot of a Redis Cluster a key belongs to (Redis Cluster specification, "Key distribution model").

/// CRC16 in the variant of XMODEM: polynomial 0x1021, most significant bit first, from zero.
private let crcTable: [UInt16] = (0..<256).map { byte in
    var crc = UInt16(byte) << 8
    for _ in 0..<8 { crc = crc & 0x8000 == 0 ? crc << 1 : crc << 1 ^ 0x1021 }
    return crc
}

package enum KeySlot {
    package static let count = 16_384

    /// The slot of a key: of what stands between its first `{` and the next `}`, if that is anything, else of all of it.
    package static func of(_ key: Span<UInt8>) -> Int {
        var start = 0
        var end = key.count
        var open = 0
        while open < key.count, key[open] != UInt8(ascii: "{") { open += 1 }
        if open < key.count {
            var close = open + 1
            while close < key.count, key[close] != UInt8(ascii: "}") { close += 1 }
            if close < key.count, close > open + 1 { (start, end) = (open + 1, close) }
        }
        var crc: UInt16 = 0
        for i in start..<end { crc = crc << 8 ^ crcTable[Int(crc >> 8 ^ UInt16(key[i]))] }
        return Int(crc) & (count - 1)
    }

    package static func of(_ key: String) -> Int {
        let bytes = Array(key.utf8)
        return of(bytes.span)
    }

    /// A number whose text belongs to the slot: a hash tag for keys that are needed on a certain server. One in sixteen
    /// thousand does, so the search is short, and the same everywhere.
    package static func tag(of slot: Int) -> String {
        var number = 0
        while of(String(number)) != slot { number += 1 }
        return String(number)
    }
}
