import Primitives
import Synchronization
import TestSupport
import Testing

@Suite("Least connections over the cluster")
struct ClusterLoadTests {
    private final class Gate: Sendable {
        let isOpen = Atomic<Bool>(false)
    }

    @Test("what one node has in flight, another spares the backend; without the option it does not know")
    func cluster() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let gate = Gate()
            defer { gate.isOpen.store(true, ordering: .relaxed) }
            let backends = try ["left", "right"].map { name in
                try scene.backend { exchange in
                    if exchange.request.target == "/slow" {
                        try eventually("the gate opens") { gate.isOpen.load(ordering: .relaxed) }
                    }
                    try exchange.answer(name)
                    return .keep
                }
            }
            var file = File(backends, "strategy: least_connections, leastConnections: {scope: cluster}")
            file.gateway = "heartbeat: 100ms"
            file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
            let nodes = try ["a", "b"].map { try scene.node(file, ["--node-id", $0]) }
            try LimitTests.reached(nodes)
            // Three long requests through the first node, of which one backend has two.
            var slow: [Wire] = []
            for _ in 0..<3 {
                let wire = try nodes[0].connect()
                try wire.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
                slow.append(wire)
                try eventually("it is under way") {
                    backends.reduce(0) { $0 + $1.requests.count } == slow.count
                }
            }
            let idle = backends[0].requests.count < backends[1].requests.count ? "left" : "right"
            func counts(_ node: SluiceNode) throws -> Set<Substring> {
                Set(
                    try node.admin("/api/backends").text.split(separator: "\"clusterInFlight\":").dropFirst()
                        .map { $0.prefix { $0.isNumber } })
            }
            for node in nodes { try eventually("both know both") { try counts(node) == ["1", "2"] } }
            for _ in 0..<10 { #expect(try nodes[1].ask().text == idle) }
            gate.isOpen.store(true, ordering: .relaxed)
            for wire in slow { #expect(try wire.readResponse().status == 200) }
            for node in nodes { try eventually("nothing is in flight") { try counts(node) == ["0"] } }
            #expect(Set(try (0..<10).map { _ in try nodes[1].ask().text }) == ["left", "right"])
        }
    }

    @Test("clients that reach the nodes unevenly load the backends evenly: 17, 4 and 3 requests are 6 at each of four")
    func unevenClients() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let gate = Gate()
            defer { gate.isOpen.store(true, ordering: .relaxed) }
            let backends = try (0..<4).map { index in
                try scene.backend { exchange in
                    try eventually("the gate opens") { gate.isOpen.load(ordering: .relaxed) }
                    try exchange.answer("\(index)")
                    return .keep
                }
            }
            var file = File(backends, "strategy: least_connections, leastConnections: {scope: cluster}")
            file.gateway = "heartbeat: 100ms"
            file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
            let nodes = try ["a", "b", "c"].map { try scene.node(file, ["--node-id", $0]) }
            try LimitTests.reached(nodes)
            func inFlight(_ node: SluiceNode) throws -> Int {
                try node.admin("/api/backends").text.split(separator: "\"clusterInFlight\":").dropFirst()
                    .reduce(0) { $0 + (Int($1.prefix { $0.isNumber }) ?? 0) }
            }
            var wires: [Wire] = []
            // The last ones come when the first node is full of requests of its own, of which it alone knows by itself.
            for index in Array(repeating: 0, count: 17) + [1, 2, 1, 2, 1, 2, 1] {
                let wire = try nodes[index].connect()
                try wire.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
                wires.append(wire)
                try eventually("all nodes know of it") { try nodes.allSatisfy { try inFlight($0) == wires.count } }
            }
            #expect(backends.map(\.requests.count) == [6, 6, 6, 6])
            gate.isOpen.store(true, ordering: .relaxed)
            for wire in wires { #expect(try wire.readResponse().status == 200) }
        }
    }
}
