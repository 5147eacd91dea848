// Network namespaces for nodes that are to have an address and a way to the others of their own, which can be broken.

import Glibc
package import Primitives
import Synchronization

/// Some namespaces on one bridge. The test itself is at the hub's addresses: Redis and the backends listen there.
package final class Namespaces {
    private let name: String
    private let network: String
    private let count: Int

    private static let made = Mutex(0)
    /// Addresses of the hub: one for the test's own connections, the others for Redis and backends.
    private static let hubAddresses = 1...4

    /// Why this machine makes none; `nil` where it does.
    package static let refusal: String? = {
        guard unsafe access("/usr/sbin/ip", X_OK) == 0 || access("/sbin/ip", X_OK) == 0 else {
            return "network namespaces need iproute2"
        }
        guard getuid() == 0 else { return "network namespaces need root" }
        do {
            let probe = try Namespaces(1)
            defer { probe.remove() }
            let inside = try ChildProcess(probe.program(0)[0], Array(probe.program(0).dropFirst()) + ["/bin/true"])
            guard try inside.waitForExit() == 0 else { return "nothing runs in a network namespace: \(inside.errors)" }
            return nil
        } catch {
            return "this machine makes no network namespaces: \(error)"
        }
    }()

    package init(_ count: Int) throws {
        let number = Self.made.withLock { made in
            made += 1
            return made
        }
        // Names and networks of their own for each process that runs tests.
        let pid = Int(getpid())
        name = "s\(pid)x\(number)"
        network = "10.\(64 + pid % 128).\((pid / 128 + number) % 250)"
        self.count = count
        do {
            try ip("link add \(name)b type bridge")
            for host in Self.hubAddresses { try ip("addr add \(hub(host))/24 dev \(name)b") }
            try ip("link set \(name)b up")
            for index in 0..<count {
                try ip("netns add \(name)n\(index)")
                try ip("link add \(name)v\(index) type veth peer name eth0 netns \(name)n\(index)")
                try ip("link set \(name)v\(index) master \(name)b up")
                try ip("-n \(name)n\(index) addr add \(address(index))/24 dev eth0")
                try ip("-n \(name)n\(index) link set eth0 up")
                try ip("-n \(name)n\(index) link set lo up")
            }
        } catch {
            remove()
            throw error
        }
    }

    /// An address of the hub; the first is 1.
    package func hub(_ host: Int) -> IPAddress { IPAddress("\(network).\(host)") ?? .v4Loopback }

    /// The address of a namespace.
    package func address(_ index: Int) -> IPAddress { IPAddress("\(network).\(10 + index)") ?? .v4Loopback }

    /// What to put before a program, so that it runs there.
    package func program(_ index: Int) -> [String] { ["/usr/bin/env", "ip", "netns", "exec", "\(name)n\(index)"] }

    /// From here on nothing gets from this namespace to an address of the hub.
    package func cut(_ index: Int, from host: Int) throws {
        try ip("-n \(name)n\(index) route add unreachable \(hub(host))/32")
    }

    package func heal(_ index: Int, to host: Int) throws {
        try ip("-n \(name)n\(index) route del unreachable \(hub(host))/32")
    }

    /// What runs there must have ended.
    package func remove() {
        for index in 0..<count { try? ip("netns del \(name)n\(index)") }
        try? ip("link del \(name)b")
    }

    private func ip(_ arguments: String) throws {
        let tool = try ChildProcess("/usr/bin/env", ["ip"] + arguments.split(separator: " ").map(String.init))
        guard try tool.waitForExit() == 0 else { throw ProcessError("ip \(arguments): \(tool.errors)") }
    }
}
