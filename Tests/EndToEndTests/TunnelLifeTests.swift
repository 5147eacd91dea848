import Glibc
import LinuxIO
import Primitives
import Synchronization
import TestSupport
import Testing

@Suite("Tunnels beside requests")
struct TunnelLifeTests {
    /// A backend that says its name in each tunnel and then sends everything back.
    private static func named(
        _ name: String, _ scene: Scene, isWell: @escaping @Sendable () -> Bool = { true }
    ) throws -> RecordingBackend {
        try TunnelScene.backend(scene, greeting: name, isWell: isWell) { _, wire in
            while true { try wire.send(try wire.read(1)) }
        }
    }

    /// Opens a tunnel; tells the name of its backend.
    private func open(_ node: SluiceNode) throws -> (wire: Wire, name: String) {
        let wire = try TunnelScene.open(node)
        return (wire, String(decoding: try wire.read(1), as: UTF8.self))
    }

    @Test("tunnels count as requests in flight for least connections")
    func leastConnections() throws {
        try Scene.play { scene in
            let backends = try ["a", "b"].map { try Self.named($0, scene) }
            let node = try scene.node(File(backends, "strategy: least_connections"))
            let idle = node.process.descriptorCount
            let clients = try (0..<6).map { _ in try open(node) }
            #expect(clients.filter { $0.name == "a" }.count == 3)
            // One backend's tunnels end: it gets all until both have the same again.
            for client in clients where client.name == "a" { client.wire.close() }
            try eventually("the node has noticed") { node.process.descriptorCount == idle + 6 }
            let next = try (0..<3).map { _ in try open(node) }
            #expect(next.map(\.name) == ["a", "a", "a"])
        }
    }

    @Test(
        "consistent hashing leads a client back to its backend",
        arguments: ["client", "header:X-Session", "cookie:session"])
    func sticky(hashOn: String) throws {
        try Scene.play { scene in
            let backends = try (0..<4).map { _ in try TunnelScene.echo(scene) }
            var file = File(backends, "strategy: consistent_hash, hashOn: \"\(hashOn)\"")
            file.workers = "2"
            let node = try scene.node(file)
            var homes: [Int: Set<Int>] = [:]
            var open: [Wire] = []
            for _ in 0..<3 {
                for key in 1...8 {
                    let before = backends.map(\.requests.count)
                    let fields = "X-Session: s\(key)\r\nCookie: a=b; session=s\(key)\r\n"
                    let request = TunnelScene.request.dropLast() + fields + "\r\n"
                    let source = hashOn == "client" ? IPAddress("127.0.0.\(key)") : nil
                    open.append(try TunnelScene.open(node, String(request), from: source))
                    let home = try #require(backends.indices.first { backends[$0].requests.count > before[$0] })
                    homes[key, default: []].insert(home)
                }
            }
            #expect(homes.values.allSatisfy { $0.count == 1 })
            #expect(Set(homes.values).count > 1, "all keys have one home")
        }
    }

    @Test("an attempt is limited like a request, and an open tunnel is not asked again")
    func limited() throws {
        try Scene.play { scene in
            let backend = try TunnelScene.echo(scene)
            var file = File([backend])
            file.rateLimit = "requestsPerSecond: 1, burstSize: 2"
            let node = try scene.node(file)
            let tunnel = try TunnelScene.open(node)
            let other = try TunnelScene.open(node)
            let third = try node.connect()
            try third.send(TunnelScene.request)
            #expect(try third.readResponse().status == 429)
            for wire in [tunnel, other] {
                for _ in 0..<20 {
                    try wire.send("message")
                    #expect(try wire.read(7) == Array("message".utf8))
                }
            }
            #expect(backend.requests.count == 2)
        }
    }

    @Test("a tunnel holds one of the places of its backend's pool, and gives it back")
    func places() throws {
        try Scene.play { scene in
            let backend = try TunnelScene.echo(scene)
            let node = try scene.node(File([backend], "pool: {idle: 1, connections: 1}, timeouts: {connect: 100ms}"))
            let first = try TunnelScene.open(node)
            let second = try node.connect()
            try second.send(TunnelScene.request)
            #expect(try second.readResponse().status == 503)
            first.close()
            try eventually("the place is free") {
                let again = try node.connect()
                try again.send(TunnelScene.request)
                return try again.readHead()?.status == 101
            }
        }
    }

    private static let probing =
        "interval: 20ms, warningInterval: 20ms, downInterval: 20ms, failures: 1, successes: 1, timeout: 5s"

    private func reach(_ state: String, _ node: SluiceNode) throws {
        try eventually("a backend is \(state)") {
            try node.admin("/api/backends").text.contains("\"state\":\"\(state)\"")
        }
    }

    @Test("a backend that leaves drains its tunnels, and no others")
    func backendLeaves() throws {
        try Scene.play { scene in
            let isWell = Atomic<Bool>(true)
            let backends = [
                try Self.named("l", scene) { isWell.load(ordering: .relaxed) }, try Self.named("s", scene),
            ]
            var file = File(backends, "timeouts: {tunnelGrace: 200ms}")
            file.services[0].health = Self.probing
            let node = try scene.node(file)
            var clients = try (0..<4).map { _ in try open(node) }
            #expect(Set(clients.map(\.name)) == ["l", "s"])
            isWell.store(false, ordering: .relaxed)
            try reach("down", node)
            for client in clients where client.name == "l" { #expect(try client.wire.endsHere()) }
            for _ in 0..<3 { clients.append(try open(node)) }
            #expect(clients[4...].allSatisfy { $0.name == "s" })
            for client in clients where client.name == "s" {
                try client.wire.send("x")
                #expect(try client.wire.read(1) == Array("x".utf8))
            }
        }
    }

    @Test("a backend that is back in time keeps its tunnels")
    func backendReturns() throws {
        try Scene.play { scene in
            let isWell = Atomic<Bool>(true)
            let backend = try Self.named("b", scene) { isWell.load(ordering: .relaxed) }
            var file = File([backend], "timeouts: {tunnelGrace: 2s}")
            file.services[0].health = Self.probing
            let node = try scene.node(file)
            let client = try open(node).wire
            isWell.store(false, ordering: .relaxed)
            try reach("down", node)
            let end = SystemClock.monotonic() + .milliseconds(2_200)
            isWell.store(true, ordering: .relaxed)
            try reach("up", node)
            // Until the grace period would have been over.
            while SystemClock.monotonic() < end {
                try client.send("z")
                #expect(try client.read(1) == Array("z".utf8))
            }
        }
    }

    @Test("a node that is told to end ends its tunnels in time, and itself with 0")
    func nodeDrains() throws {
        try Scene.play { scene in
            let backend = try TunnelScene.echo(scene)
            var file = File([backend])
            file.gateway = "drain: {timeout: 2s}"
            file.workers = "2"
            let node = try scene.node(file)
            let clients = try (0..<5).map { _ in try TunnelScene.open(node) }
            node.process.signal(SIGTERM)
            for client in clients {
                #expect(try client.read(4) == [0x88, 0x02, 0x03, 0xe9])
                #expect(try client.endsHere())
                client.close()
            }
            #expect(try node.process.waitForExit() == 0)
            #expect(node.log.contains("all connections are closed"))
        }
    }
}
