import Glibc
import LinuxIO
import Primitives
import TestSupport
import Testing

@Suite("Connections and descriptors run out")
struct ScarcityTests {
    private static let request = "GET / HTTP/1.1\r\nHost: test\r\n\r\n"

    private static func served(_ node: SluiceNode) throws -> Wire {
        let wire = try node.connect()
        try wire.send(request)
        #expect(try wire.readResponse().status == 200)
        return wire
    }

    @Test("at the limit the connection that has been idle longest makes room", arguments: [1, 3])
    func sheds(workers: Int) throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            file.workers = "\(workers)"
            file.gateway = "limits: {connections: 4}"
            let node = try scene.node(file)
            var wires = try (0..<4).map { _ in try Self.served(node) }
            // The first is idle for less long than the second now.
            try wires[0].send(Self.request)
            #expect(try wires[0].readResponse().status == 200)
            wires.append(try Self.served(node))
            if workers == 1 {
                #expect(try wires[1].endsHere())
                for index in [0, 2, 3, 4] {
                    try wires[index].send(Self.request)
                    #expect(try wires[index].readResponse().status == 200)
                }
            }
            // More than there are places, one after the other: each is served.
            for _ in 0..<40 { _ = try Self.served(node) }
            let status = try node.admin("/readyz").text
            #expect(status.contains("\"scarce\":true") && status.contains("\"max\":4"))
            try eventually("the operator is told") { node.log.contains("connections are scarce") }
        }
    }

    @Test("where nobody is idle, new clients wait their turn")
    func waits() throws {
        try Scene.play { scene in
            let gate = Gate()
            let backend = try scene.backend { exchange in
                if exchange.request.target == "/held" { gate.wait() }
                try exchange.answer()
                return .keep
            }
            defer { gate.open() }
            var file = File([backend])
            file.gateway = "limits: {connections: 4}"
            let node = try scene.node(file)
            let held = try (0..<4).map { _ in
                let wire = try node.connect()
                try wire.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
                return wire
            }
            try eventually("all places are taken") { backend.requests.count == 4 }
            let waiting = try (0..<8).map { _ in
                let wire = try node.connect()
                try wire.send(Self.request)
                return wire
            }
            try eventually("the operator is told") { node.log.contains("connections are scarce") }
            #expect(try node.admin("/readyz").status == 200)
            #expect(backend.requests.count == 4)
            gate.open()
            for wire in held + waiting { #expect(try wire.readResponse().status == 200) }
        }
    }

    @Test("heads that do not come to their end make room too")
    func slowHeads() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            file.gateway = "limits: {connections: 4, headerTimeout: 1h}"
            let node = try scene.node(file)
            let slow = try (0..<4).map { index in
                let wire = try node.connect()
                if index % 2 == 0 { try wire.send("GET / HTTP/1.1\r\nHost: te") }
                return wire
            }
            _ = try Self.served(node)
            #expect(try node.admin("/readyz").text.contains("\"shed\":1"))
            for wire in slow { wire.close() }
        }
    }

    @Test("out of descriptors, the idle make room; when there are some again, all is as before", arguments: [1, 2])
    func descriptors(workers: Int) throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            file.workers = "\(workers)"
            let node = try scene.node(file)
            _ = try Self.served(node)
            try node.process.limitDescriptors(to: node.process.descriptorCount + 6)
            // Each of them stays open at the client's side.
            let wires = try (0..<40).map { _ in try Self.served(node) }
            try eventually("the operator is told") { node.log.contains("connections are scarce") }
            #expect(try wires[0].endsHere())
            try wires[39].send(Self.request)
            #expect(try wires[39].readResponse().status == 200)
            try node.process.limitDescriptors(to: 1_000)
            let more = try (0..<100).map { _ in try Self.served(node) }
            for wire in more {
                try wire.send(Self.request)
                #expect(try wire.readResponse().status == 200)
            }
        }
    }

    @Test("a request in hand gets its descriptor from what lies idle")
    func descriptorForBackend() throws {
        try Scene.play { scene in
            let gate = Gate()
            let backend = try scene.backend { exchange in
                if exchange.request.target == "/held" { gate.wait() }
                try exchange.answer()
                return .keep
            }
            defer { gate.open() }
            let node = try scene.node(File([backend]))
            // Idle clients, and one backend connection that all of them share.
            let idle = try (0..<10).map { _ in try Self.served(node) }
            let busy = try (0..<4).map { _ in try node.connect() }
            for wire in busy {
                try wire.send(Self.request)
                #expect(try wire.readResponse().status == 200)
            }
            try node.process.limitDescriptors(to: node.process.descriptorCount)
            for wire in busy { try wire.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n") }
            try eventually("all four are at the backend") { backend.requests.count { $0.target == "/held" } == 4 }
            gate.open()
            for wire in busy { #expect(try wire.readResponse().status == 200) }
            #expect(try idle[0].endsHere())
        }
    }
}

/// Holds threads until it is opened.
private final class Gate: Sendable {
    private let waiter = Waiter()

    func wait() {
        waiter.wait()
        // The next one may pass as well.
        waiter.signal()
    }

    func open() { waiter.signal() }
}
