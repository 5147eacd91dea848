import Primitives

/// Finds the service of a path: the longest configured prefix that ends on a segment border, so that `/api/usersextra`
/// is not under `/api/users`.
///
/// One pass over the path, a table look-up at each border: the time does not grow with the number of services.
///
/// Paths are compared as RFC 3986 §6.2.2 compares them: `%61` is `a`, and `%2f` is `%2F` but no slash. Beyond that,
/// slashes in a row are one, and the parameters of a segment (`;x`) are none of it, because many backends read paths so.
/// Compared byte for byte, `/%61dmin`, `//admin` and `/admin;x` would go to the service of `/`, past the limits of
/// `/admin`, and a backend of both would take them for `/admin`. The path is forwarded as it was written.
package struct RouteTable: Sendable {
    private struct Route: Sendable {
        var hash: UInt64
        var prefix: [UInt8]
        var service: Int
    }

    private var routes: [Route] = []
    /// Open addressing: the index of a route, or -1.
    private var slots: [Int32]
    private let root: Int?
    private let reading: NormalPath.Reading

    /// - Parameters:
    ///   - prefixes: in the order of the services, without a trailing slash; the empty prefix covers every path.
    ///   - reading: how much of a path is taken for a border.
    package init(prefixes: [[UInt8]], reading: NormalPath.Reading = .asWritten) {
        self.reading = reading
        var size = 8
        while size < prefixes.count * 4 { size *= 2 }
        slots = Array(repeating: -1, count: size)
        var root: Int?
        for (service, written) in prefixes.enumerated() {
            let prefix = NormalPath.of(written, reading)
            if prefix.isEmpty {
                root = service
                continue
            }
            let hash = prefix.reduce(Self.seed) { Self.step($0, $1) }
            var slot = Self.slot(hash, size)
            while slots[slot] >= 0 { slot = (slot + 1) & (size - 1) }
            slots[slot] = Int32(clamping: routes.count)
            routes.append(Route(hash: hash, prefix: prefix, service: service))
        }
        self.root = root
    }

    /// The service whose prefix covers `path` (without its query), and the length of that prefix.
    package func service(of path: Span<UInt8>) -> (service: Int, prefixLength: Int)? {
        var best: (Int, Int)? = nil
        if let root { best = (root, 0) }
        var hash = Self.seed
        for i in 0..<path.count {
            let byte = path[i]
            if byte == UInt8(ascii: "%") || byte == UInt8(ascii: ";") { return serviceNormalizing(path) }
            // A prefix may end before a slash; the first byte of a path is one, and no prefix is empty here.
            if i > 0, byte == UInt8(ascii: "/") {
                if path[i - 1] == byte { return serviceNormalizing(path) }
                if let service = find(hash, path, i) { best = (service, i) }
            }
            hash = Self.step(hash, byte)
        }
        if let service = find(hash, path, path.count) { best = (service, path.count) }
        return best
    }

    /// The same for a path that is not in its normal form. The length is that of the path as written: what stands between
    /// a prefix and the last of the slashes behind it goes with the prefix.
    private func serviceNormalizing(_ path: Span<UInt8>) -> (service: Int, prefixLength: Int)? {
        var best: (Int, Int)? = nil
        if let root { best = (root, 0) }
        var hash = Self.seed
        var normal = NormalPath(reading)
        while true {
            let end = normal.position
            let byte = normal.next(path)
            if end > 0, byte == nil || normal.isAtBorder, let service = findNormal(hash, path, end) {
                best = (service, byte == nil ? path.count : normal.lastSlash)
            }
            guard let byte else { return best }
            hash = Self.step(hash, byte)
        }
    }

    private func findNormal(_ hash: UInt64, _ path: Span<UInt8>, _ length: Int) -> Int? {
        var slot = Self.slot(hash, slots.count)
        while slots[slot] >= 0 {
            let index = Int(slots[slot])
            if routes[index].hash == hash, matchesNormal(index, path.extracting(0..<length)) {
                return routes[index].service
            }
            slot = (slot + 1) & (slots.count - 1)
        }
        return nil
    }

    private func matchesNormal(_ index: Int, _ path: Span<UInt8>) -> Bool {
        var normal = NormalPath(reading)
        for i in routes[index].prefix.indices where normal.next(path) != routes[index].prefix[i] { return false }
        return normal.next(path) == nil
    }

    private func find(_ hash: UInt64, _ path: Span<UInt8>, _ length: Int) -> Int? {
        var slot = Self.slot(hash, slots.count)
        while slots[slot] >= 0 {
            let index = Int(slots[slot])
            if routes[index].hash == hash, matches(index, path, length) { return routes[index].service }
            slot = (slot + 1) & (slots.count - 1)
        }
        return nil
    }

    private func matches(_ index: Int, _ path: Span<UInt8>, _ length: Int) -> Bool {
        guard routes[index].prefix.count == length else { return false }
        for i in 0..<length where routes[index].prefix[i] != path[i] { return false }
        return true
    }

    private static let seed: UInt64 = 0xcbf2_9ce4_8422_2325

    @inline(__always)
    private static func step(_ hash: UInt64, _ byte: UInt8) -> UInt64 { (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }

    @inline(__always)
    private static func slot(_ hash: UInt64, _ size: Int) -> Int { Int(truncatingIfNeeded: mix64(hash)) & (size - 1) }
}

/// Reads a path in its normal form (RFC 3986 §6.2.2): escapes of letters, digits and `-._~` decoded, the digits of all
/// others in upper case, slashes in a row as one, without the parameters of segments.
package struct NormalPath {
    package enum Reading: Sendable {
        /// `%2f` and `%3b` are parts of names.
        case asWritten
        /// They are a slash and a semicolon, as to backends that decode first: for those who would rather cover too much.
        case decoded
    }

    /// How far the path as written is read.
    private(set) var position = 0
    /// Where the last of the slashes stands that were read as one.
    private(set) var lastSlash = 0
    /// Whether what was read last is a slash between segments.
    private(set) var isAtBorder = false
    private let reading: Reading
    /// The digits to come of an escape that stays.
    private var digits = 0

    init(_ reading: Reading) { self.reading = reading }

    mutating func next(_ path: Span<UInt8>) -> UInt8? {
        isAtBorder = false
        guard position < path.count else { return nil }
        if digits > 0 {
            digits -= 1
            let byte = path[position]
            position += 1
            return byte >= 0x61 && byte <= 0x66 ? byte & 0xdf : byte
        }
        var unit = unit(path)
        if unit.byte == UInt8(ascii: ";") {
            skipParameters(path)
            guard position < path.count else { return nil }
            unit = self.unit(path)
        }
        if unit.byte == UInt8(ascii: "/") {
            isAtBorder = true
            skipBorder(path)
            return unit.byte
        }
        position += unit.width
        // A percent sign of two bytes less is the beginning of an escape that stays.
        if unit.byte == UInt8(ascii: "%"), unit.isEscape { digits = 2 }
        return unit.byte
    }

    /// What stands at the position: a byte, or an escape that is read as one. Of an escape that stays only the percent
    /// sign.
    private func unit(_ path: Span<UInt8>) -> (byte: UInt8, width: Int, isEscape: Bool) {
        let byte = path[position]
        guard byte == UInt8(ascii: "%"), path.count - position >= 3 else { return (byte, 1, false) }
        let (high, low) = (Self.value(path[position + 1]), Self.value(path[position + 2]))
        guard high < 16, low < 16 else { return (byte, 1, false) }
        let decoded = high << 4 | low
        if Self.isUnreserved(decoded) { return (decoded, 3, false) }
        if reading == .decoded, decoded == UInt8(ascii: "/") || decoded == UInt8(ascii: ";") {
            return (decoded, 3, false)
        }
        return (byte, 1, true)
    }

    private mutating func skipParameters(_ path: Span<UInt8>) {
        while position < path.count {
            let unit = unit(path)
            if unit.byte == UInt8(ascii: "/") { return }
            position += unit.width
        }
    }

    /// Skips slashes, and parameters of empty segments between them.
    private mutating func skipBorder(_ path: Span<UInt8>) {
        while position < path.count {
            let unit = unit(path)
            switch unit.byte {
            case UInt8(ascii: "/"):
                lastSlash = position
                position += unit.width
            case UInt8(ascii: ";"): skipParameters(path)
            default: return
            }
        }
    }

    static func of(_ path: [UInt8], _ reading: Reading) -> [UInt8] {
        var normal = NormalPath(reading)
        var result: [UInt8] = []
        while let byte = normal.next(path.span) { result.append(byte) }
        return result
    }

    /// Of a hexadecimal digit; 255 for any other byte.
    private static func value(_ byte: UInt8) -> UInt8 {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46, 0x61...0x66: (byte | 0x20) - 0x57
        default: 255
        }
    }

    /// RFC 3986 §2.3.
    private static func isUnreserved(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f, 0x7e: true
        default: false
        }
    }
}
