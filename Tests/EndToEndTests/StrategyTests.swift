import Primitives
import TestSupport
import Testing

@Suite("Strategies through a node")
struct StrategyTests {
    /// Requests over many connections, so that both workers serve some.
    private func send(_ count: Int, to node: SluiceNode, target: (Int) -> String = { _ in "/" }) throws {
        var done = 0
        while done < count {
            let client = try node.connect()
            for _ in 0..<min(7, count - done) {
                try client.send("GET \(target(done)) HTTP/1.1\r\nHost: test\r\n\r\n")
                #expect(try client.readResponse().status == 200)
                done += 1
            }
        }
    }

    @Test("round robin gives each backend the same, over all workers")
    func roundRobin() throws {
        try Scene.play { scene in
            let backends = try (0..<3).map { try scene.backend(named: "\($0)") }
            var file = File(backends, "strategy: round_robin")
            file.workers = "2"
            let node = try scene.node(file)
            try send(300, to: node)
            #expect(backends.map(\.requests.count) == [100, 100, 100])
        }
    }

    @Test("weights are kept exactly, over all workers")
    func weights() throws {
        try Scene.play { scene in
            let backends = try (0..<3).map { try scene.backend(named: "\($0)") }
            let urls = zip(backends, [5, 2, 1]).map { "{url: \"\($0.url)\", weight: \($1)}" }
            var file = File([File.Service(urls: urls, more: "strategy: weighted_round_robin")])
            file.workers = "2"
            let node = try scene.node(file)
            try send(320, to: node)
            #expect(backends.map(\.requests.count) == [200, 80, 40])
        }
    }

    @Test("consistent hashing keeps a key at its backend, and spreads keys")
    func hashing() throws {
        try Scene.play { scene in
            let backends = try (0..<4).map { try scene.backend(named: "\($0)") }
            var file = File(backends, "strategy: consistent_hash, hashOn: path")
            file.workers = "2"
            let node = try scene.node(file)
            for _ in 0..<3 { try send(60, to: node) { "/\($0)" } }
            var homes: [String: Set<Int>] = [:]
            for (index, backend) in backends.enumerated() {
                for request in backend.requests { homes[request.target, default: []].insert(index) }
                #expect(!backend.requests.isEmpty)
            }
            #expect(homes.count == 60)
            #expect(homes.values.allSatisfy { $0.count == 1 })
        }
    }

    /// How a client is told apart, and the request of client number `n`.
    static let hashed: [(String, @Sendable (Int) -> (fields: String, source: String))] = [
        ("client", { ("", "127.0.0.\($0 + 2)") }),
        ("header:X-Tenant", { ("x-tenant: tenant-\($0)\r\n", "127.0.0.\($0 % 3 + 2)") }),
        ("cookie:session", { ("Cookie: a=1; session=s\($0); b=2\r\n", "127.0.0.\($0 % 3 + 2)") }),
    ]

    @Test(
        "consistent hashing keeps a client on its backend, over nodes and their restarts", arguments: [0, 1, 2])
    func hashingKeepsClients(row: Int) throws {
        try Scene.play { scene in
            let (hashOn, request) = Self.hashed[row]
            let backends = try (0..<4).map { try scene.backend(named: "\($0)") }
            var file = File(backends, "strategy: consistent_hash, hashOn: \"\(hashOn)\"")
            file.workers = "2"
            var homes: [Int: Set<String>] = [:]
            func ask(_ node: SluiceNode) throws {
                for client in 0..<20 {
                    let (fields, source) = request(client)
                    homes[client, default: []].insert(
                        try node.ask(fields: fields, from: IPAddress(source)).text)
                }
            }
            let first = try scene.node(file)
            let second = try scene.node(file)
            for node in [first, second] { try ask(node) }
            #expect(try first.terminate() == 0)
            try ask(try scene.node(file))
            #expect(homes.values.allSatisfy { $0.count == 1 })
            #expect(Set(homes.values.joined()) == ["0", "1", "2", "3"])
        }
    }

    @Test("a client whose backend has left moves to another one, alone, and comes back with it")
    func hashingMovesFew() throws {
        try Scene.play { scene in
            let backends = try (0..<4).map { try scene.backend(named: "\($0)") }
            let node = try scene.node(File(backends, "strategy: consistent_hash, hashOn: \"header:X-Tenant\""))
            func homes() throws -> [String] {
                try (0..<40).map { try node.ask(fields: "X-Tenant: \($0)\r\n").text }
            }
            let before = try homes()
            let port = backends[1].address.port
            backends[1].stop()
            let without = try homes()
            for (old, new) in zip(before, without) { #expect(old == "1" ? new != "1" : new == old) }
            #expect(Set(without) == ["0", "2", "3"])
            _ = try scene.backend(named: "1", port: port)
            try eventually("everyone is home") { try homes() == before }
        }
    }

    @Test("least connections avoids the backend that is busy")
    func leastConnections() throws {
        try Scene.play { scene in
            let busy = try scene.backend { exchange in
                _ = try exchange.wire.endsHere()
                return .close
            }
            let free = try scene.backend(named: "free")
            let node = try scene.node(File([busy, free], "strategy: least_connections"))
            // Requests that are never answered, until the busy backend has one.
            var waiting: [Wire] = []
            while busy.requests.isEmpty, waiting.count < 4 {
                let client = try node.connect()
                try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                let before = free.requests.count
                try eventually("a backend has it") { busy.requests.count == 1 || free.requests.count > before }
                waiting.append(client)
            }
            #expect(busy.requests.count == 1)
            for _ in 0..<20 { #expect(try node.ask().text == "free") }
            #expect(busy.requests.count == 1)
        }
    }
}
