import Primitives

/// Finds the service of a path: the longest configured prefix that ends on a segment border, so that `/api/usersextra`
/// is not under `/api/users`.
///
/// One pass over the path, a table look-up at each border: the time does not grow with the number of services.
///
/// Paths are compared as RFC 3986 §6.2.2 compares them: `%61` is `a`, and `%2f` is `%2F` but no slash. Compared byte for
/// byte, `/%61dmin` would go to the service of `/`, past the limits of `/admin`, and a backend of both would decode it.
/// The path is forwarded as it was written.
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

    /// `prefixes` in the order of the services, without a trailing slash; the empty prefix covers every path.
    package init(prefixes: [[UInt8]]) {
        var size = 8
        while size < prefixes.count * 4 { size *= 2 }
        slots = Array(repeating: -1, count: size)
        var root: Int?
        for (service, written) in prefixes.enumerated() {
            let prefix = NormalPath.of(written)
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
            if path[i] == UInt8(ascii: "%") { return serviceNormalizing(path) }
            // A prefix may end before a slash; the first byte of a path is one, and no prefix is empty here.
            if i > 0, path[i] == UInt8(ascii: "/"), let service = find(hash, path, i) { best = (service, i) }
            hash = Self.step(hash, path[i])
        }
        if let service = find(hash, path, path.count) { best = (service, path.count) }
        return best
    }

    /// The same for a path with escapes. The length is that of the path as written.
    private func serviceNormalizing(_ path: Span<UInt8>) -> (service: Int, prefixLength: Int)? {
        var best: (Int, Int)? = nil
        if let root { best = (root, 0) }
        var hash = Self.seed
        var normal = NormalPath()
        while true {
            let end = normal.position
            let byte = normal.next(path)
            if end > 0, byte == nil || byte == UInt8(ascii: "/"), let service = findNormal(hash, path, end) {
                best = (service, end)
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
        var normal = NormalPath()
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
/// others in upper case.
private struct NormalPath {
    /// How far the path as written is read.
    private(set) var position = 0
    /// The digits to come of an escape that stays.
    private var digits = 0

    mutating func next(_ path: Span<UInt8>) -> UInt8? {
        guard position < path.count else { return nil }
        let byte = path[position]
        if digits > 0 {
            digits -= 1
            position += 1
            return byte >= 0x61 && byte <= 0x66 ? byte & 0xdf : byte
        }
        guard byte == UInt8(ascii: "%"), path.count - position >= 3 else {
            position += 1
            return byte
        }
        let (high, low) = (Self.value(path[position + 1]), Self.value(path[position + 2]))
        if high < 8, low < 16, Self.isUnreserved(high << 4 | low) {
            position += 3
            return high << 4 | low
        }
        digits = high < 16 && low < 16 ? 2 : 0
        position += 1
        return byte
    }

    static func of(_ path: [UInt8]) -> [UInt8] {
        var normal = NormalPath()
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
