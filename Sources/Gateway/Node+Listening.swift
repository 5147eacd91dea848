// Where a node listens. Sockets that are there already go on: those of the process before this one, or those that it has
// itself when the configuration names another address.

import Configuration
import LinuxIO
import Primitives
import Supervision

extension Node {
    /// One socket for each worker: the kernel spreads connections over them.
    ///
    /// - Parameter inherited: sockets that another process of this node has.
    static func listen(
        _ wanted: ListenAddress, workers: Int, key: String, inherited: InheritedSockets, role: SocketRole
    ) throws(NodeStartError) -> [[ListeningSocket]] {
        // What was chosen for port 0 is as good now.
        func isThere(_ address: SocketAddress) -> Bool {
            wanted.port == 0 ? wanted.host.map { $0 == address.ip } ?? address.ip.isUnspecified : wanted.takes(address)
        }
        // Each worker has its part of every address.
        var own: [[ListeningSocket]] = Array(repeating: [], count: max(1, workers))
        let there = Dictionary(grouping: inherited.take(role, where: isThere), by: \.address)
        for (_, sockets) in there {
            for (index, part) in spread(sockets, over: workers).enumerated() { own[index] += part }
        }
        let isOurs = !there.isEmpty || inherited.contains { wanted.overlaps($0) }
        return try listen(wanted, workers: workers, key: key, own: own, probeFirst: !isOurs)
    }

    /// The same for a node that listens already.
    ///
    /// - Parameters:
    ///   - own: what it listens on, by worker.
    ///   - probeFirst: whether another program may be there; otherwise it is this one.
    static func listen(
        _ wanted: ListenAddress, workers: Int, key: String, own: [[ListeningSocket]] = [], probeFirst: Bool
    ) throws(NodeStartError) -> [[ListeningSocket]] {
        func sockets(on host: IPAddress) throws(SystemError) -> [[ListeningSocket]] {
            var address = SocketAddress(ip: host, port: wanted.port)
            func isExact(_ other: SocketAddress) -> Bool {
                other.ip == host && (wanted.port == 0 || other.port == wanted.port)
            }
            if let there = own.joined().first(where: { isExact($0.address) }) { address = there.address }
            var probes = probeFirst && address.port == wanted.port
            var sockets: [[ListeningSocket]] = []
            for worker in 0..<max(1, workers) {
                let mine = own.indices.contains(worker) ? own[worker] : []
                var found = mine.filter { isExact($0.address) }
                if found.isEmpty {
                    let new = try ListeningSocket(address, reusePort: true, probeFirst: probes)
                    (address, probes) = (new.address, false)
                    found = [new]
                }
                // The kernel prefers the narrower address, and while one ends it drops who would begin. So it stays.
                sockets.append(found + mine.filter { !isExact($0.address) && wanted.takes($0.address) })
            }
            return sockets
        }
        do throws(SystemError) {
            if let host = wanted.host { return try sockets(on: host) }
            // All interfaces: one socket for IPv6 and IPv4, or IPv4 alone where the machine has no IPv6.
            do throws(SystemError) {
                return try sockets(on: .v6Any)
            } catch  where !error.isAddressInUse {
                return try sockets(on: .v4Any)
            }
        } catch {
            let remedy =
                error.isAddressInUse
                ? "another program listens there: stop it, or choose another by --set \(key)=ADDRESS:PORT"
                : error.reason
            throw NodeStartError(description: "cannot listen on \(wanted) (\(key)): \(remedy)")
        }
    }
}

extension ListenAddress {
    /// Whether what is meant for a socket with this address is meant for this one: a socket of a narrower address may stand
    /// beside that of a wider one.
    func takes(_ address: SocketAddress) -> Bool {
        guard port != 0, port == address.port else { return false }
        guard let host, host != .v6Any else { return true }
        return host == address.ip || host == .v4Any && address.ip.family == .v4
    }

    func overlaps(_ address: SocketAddress) -> Bool {
        overlaps(ListenAddress(host: address.ip, port: address.port))
    }
}
