import Primitives

/// Finds the service of a path: the longest configured prefix that ends on a segment border, so that `/api/usersextra`
/// is not under `/api/users`.
///
/// One pass over the path, a table look-up at each border: the time does not grow with the number of services.
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
        for (service, prefix) in prefixes.enumerated() {
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
            // A prefix may end before a slash; the first byte of a path is one, and no prefix is empty here.
            if i > 0, path[i] == UInt8(ascii: "/"), let service = find(hash, path, i) { best = (service, i) }
            hash = Self.step(hash, path[i])
        }
        if let service = find(hash, path, path.count) { best = (service, path.count) }
        return best
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
