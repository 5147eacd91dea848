// Redis as a group of real servers on loopback: a primary with replicas and sentinels, and a cluster.

import Glibc
import LinuxIO
import Primitives

/// A primary, a replica, and three sentinels that watch them under the name `main`.
package final class SentinelGroup {
    package let servers: [RedisServer]
    private let held: [HeldPort]
    package var sentinelPorts: [UInt16] { held.map(\.port) }
    private var sentinels: [ChildProcess] = []
    private let directory: TemporaryDirectory

    /// - Parameter downAfter: in milliseconds; a primary that is silent for so long is replaced.
    package init(downAfter: Int = 300) throws {
        let quick = ["--repl-diskless-sync-delay", "0"]
        let primary = try RedisServer(quick)
        let replica = try RedisServer(["--replicaof", "127.0.0.1", "\(primary.port)"] + quick)
        servers = [primary, replica]
        directory = try TemporaryDirectory()
        held = try (0..<3).map { _ in try HeldPort() }
        for port in sentinelPorts {
            let file = try directory.write(
                """
                port \(port)
                bind 127.0.0.1
                dir \(directory.path)
                sentinel monitor main 127.0.0.1 \(primary.port) 2
                sentinel down-after-milliseconds main \(downAfter)
                sentinel failover-timeout main 2000

                """, to: "sentinel-\(port).conf")
            sentinels.append(try ChildProcess("/usr/bin/redis-server", [file, "--sentinel"]))
        }
        try eventually("the sentinels know each other and the replica") {
            sentinelPorts.allSatisfy { port in
                guard let client = try? RedisTestClient(BlockingSocket(port: port)) else { return false }
                guard let state = try? client("SENTINEL", "MASTER", "main") else { return false }
                return state.contains("'num-other-sentinels' '2'") && state.contains("'num-slaves' '1'")
                    && state.contains("'flags' 'master'")
            }
        }
        try eventually("the replica follows") {
            try servers[1].client()("INFO", "replication").contains("master_link_status:up")
        }
    }

    package func stop() {
        for sentinel in sentinels { sentinel.kill() }
        for server in servers { server.kill() }
    }

    /// Asks each of the sentinels.
    package func eachSentinel(_ body: (RedisTestClient) throws -> Void) throws {
        for port in sentinelPorts { try body(RedisTestClient(BlockingSocket(port: port))) }
    }

    package func killSentinel(_ index: Int) { sentinels[index].kill() }

    /// The port that the sentinels lead to.
    package func primaryPort() throws -> UInt16? {
        for port in sentinelPorts {
            guard let client = try? RedisTestClient(BlockingSocket(port: port)),
                let answer = try? client("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
            else { continue }
            return servers.map(\.port).first { answer.contains("'\($0)'") }
        }
        return nil
    }

    package var url: String {
        "redis+sentinel://" + sentinelPorts.map { "127.0.0.1:\($0)" }.joined(separator: ",") + "/main"
    }
}

/// Three servers that share the slots, as many others that have none yet, and as many replicas as are wanted.
package final class RedisCluster {
    package private(set) var servers: [RedisServer] = []
    package private(set) var replicas: [RedisServer] = []
    private var busPorts: [HeldPort] = []

    package init(spares: Int = 0, replicas replicaCount: Int = 0) throws {
        func make() throws -> RedisServer {
            let bus = try HeldPort()
            busPorts.append(bus)
            return try RedisServer([
                "--cluster-enabled", "yes", "--cluster-port", "\(bus.port)", "--cluster-node-timeout", "600",
                "--cluster-require-full-coverage", "no", "--cluster-allow-replica-migration", "no",
                "--repl-diskless-sync-delay", "0",
            ])
        }
        for _ in 0..<(3 + spares) { servers.append(try make()) }
        for _ in 0..<replicaCount { replicas.append(try make()) }
        let all = servers + replicas
        for (index, range) in [(0, 5_460), (5_461, 10_922), (10_923, 16_383)].enumerated() {
            try all[index].client()("CLUSTER", "ADDSLOTSRANGE", "\(range.0)", "\(range.1)")
        }
        for (index, server) in all.enumerated() {
            try server.client()("CLUSTER", "SET-CONFIG-EPOCH", "\(index + 1)")
        }
        for (index, server) in all.enumerated().dropFirst() {
            try all[0].client()("CLUSTER", "MEET", "127.0.0.1", "\(server.port)", "\(busPorts[index].port)")
        }
        try eventually("the servers know each other") {
            try all.allSatisfy { try $0.client()("CLUSTER", "INFO").contains("cluster_known_nodes:\(all.count)") }
        }
        for (index, replica) in replicas.enumerated() {
            let id = try id(of: servers[index])
            try eventually("the replica knows its primary") {
                try replica.client()("CLUSTER", "REPLICATE", id) == "+OK"
            }
        }
        try eventually("the cluster serves") {
            try all.allSatisfy { server in
                let client = try server.client()
                return try client("CLUSTER", "INFO").contains("cluster_state:ok")
                    && (try client("CLUSTER", "SLOTS").split(separator: "[").count) >= 3
            }
        }
        try eventually("the replicas follow") {
            try replicas.allSatisfy { try $0.client()("INFO", "replication").contains("master_link_status:up") }
        }
    }

    package func stop() {
        for server in servers + replicas { server.kill() }
    }

    package var url: String {
        "redis+cluster://" + servers.prefix(2).map { "127.0.0.1:\($0.port)" }.joined(separator: ",") + "/"
    }

    package func id(of server: RedisServer) throws -> String {
        String(try server.client()("CLUSTER", "MYID").filter { $0 != "'" })
    }

    /// Moves a slot with its keys from one server to another, as `redis-cli --cluster reshard` does.
    ///
    /// - Parameter midway: called when the slot is moving: first before, then after its keys have moved.
    package func move(
        slot: Int, from source: Int, to target: Int, midway: (_ keysMoved: Bool) throws -> Void = { _ in }
    ) throws {
        let (from, to) = (servers[source], servers[target])
        let (fromID, toID) = (try id(of: from), try id(of: to))
        let (fromClient, toClient) = (try from.client(), try to.client())
        try toClient("CLUSTER", "SETSLOT", "\(slot)", "IMPORTING", fromID)
        try fromClient("CLUSTER", "SETSLOT", "\(slot)", "MIGRATING", toID)
        try midway(false)
        while true {
            let answer: String = try fromClient("CLUSTER", "GETKEYSINSLOT", "\(slot)", "10")
            let parts: [String] = answer.split(separator: "'").map { String($0) }
            let keys: [String] = parts.filter { (part: String) -> Bool in !["[", "]", " ", "[]"].contains(part) }
            guard !keys.isEmpty else { break }
            for key in keys {
                try fromClient("MIGRATE", "127.0.0.1", "\(to.port)", key, "0", "1000")
            }
        }
        try midway(true)
        for server in [to, from] + servers.filter({ $0 !== to && $0 !== from }) {
            try server.client()("CLUSTER", "SETSLOT", "\(slot)", "NODE", toID)
        }
    }
}
