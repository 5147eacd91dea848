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
