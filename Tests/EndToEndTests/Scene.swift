import Glibc
import Primitives
import TestSupport
import Testing

/// Everything that one test has started. All of it has ended when `play` returns, however the test went.
final class Scene {
    private(set) var backends: [RecordingBackend] = []
    private(set) var nodes: [SluiceNode] = []
    private var redisServers: [RedisServer] = []
    private var heldPorts: [HeldPort] = []

    static func play(_ body: (Scene) throws -> Void) throws {
        let scene = Scene()
        defer {
            for node in scene.nodes { node.kill() }
            for backend in scene.backends { backend.stop() }
            for redis in scene.redisServers { redis.kill() }
        }
        do {
            try body(scene)
        } catch {
            for node in scene.nodes { print("log of the node at \(node.address):\n\(node.log)") }
            throw error
        }
    }

    @discardableResult
    func add(_ backend: RecordingBackend) -> RecordingBackend {
        backends.append(backend)
        return backend
    }

    /// A backend that answers 200 with its name.
    func backend(
        named name: String = "ok", on ip: IPAddress = .v4Loopback, port: UInt16 = 0
    ) throws -> RecordingBackend {
        add(
            try RecordingBackend(on: ip, port: port) {
                try $0.answer(name)
                return .keep
            })
    }

    func backend(
        _ script: @escaping @Sendable (RecordingBackend.Exchange) throws -> RecordingBackend.Next
    ) throws -> RecordingBackend {
        add(try RecordingBackend(script))
    }

    /// A port on which nobody listens, or only whoever is told its number.
    func freePort() throws -> HeldPort {
        let port = try HeldPort()
        heldPorts.append(port)
        return port
    }

    func redis(_ arguments: [String] = []) throws -> RedisServer {
        let server = try RedisServer(arguments)
        redisServers.append(server)
        return server
    }

    /// A Redis, and a file with two backends, one of which nobody answers for.
    ///
    /// - Parameter rateLimit: what else the section says.
    func halfDead(
        _ rateLimit: String
    ) throws -> (redis: RedisServer, backend: RecordingBackend, dead: HeldPort, file: File) {
        let (redis, backend, dead) = (try self.redis(), try self.backend(), try freePort())
        var file = File([backend])
        file.services[0].urls.append(dead.url)
        file.services[0].health = "interval: 50ms, warningInterval: 50ms, downInterval: 50ms, timeout: 1s, failures: 2"
        file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\", \(rateLimit)"
        return (redis, backend, dead, file)
    }

    @discardableResult
    func node(
        _ file: File, _ arguments: [String] = [], in place: [String] = [], program: String? = nil,
        environment: [String: String] = [:]
    ) throws -> SluiceNode {
        let node = try SluiceNode(
            file.yaml, arguments, in: place, program: program, environment: environment)
        nodes.append(node)
        return node
    }
}

/// A configuration whose node listens on a free port. Keys are written as in YAML's flow style: `a: 1, b: {c: 2}`.
struct File {
    struct Service {
        var name = "main"
        var path = "/"
        var urls: [String]
        /// More keys of the service.
        var more = ""
        var health = "active: false"
    }

    var services: [Service]
    var listen = "127.0.0.1:0"
    var admin = "127.0.0.1:0"
    var workers = "1"
    /// More keys of `gateway`.
    var gateway = ""
    /// The section `rateLimit`.
    var rateLimit = ""
    /// The section `auth`.
    var auth = ""

    init(_ services: [Service]) { self.services = services }

    init(_ backends: [RecordingBackend], _ more: String = "") {
        services = [Service(urls: backends.map(\.url), more: more)]
    }

    var yaml: String {
        var text = "gateway: {port: \"\(listen)\", workers: \(workers), admin: \"\(admin)\", accessLog: false"
        text += gateway.isEmpty ? "}\n" : ", \(gateway)}\n"
        text += "services:\n"
        for service in services {
            let urls = service.urls.map { $0.hasPrefix("{") ? $0 : "\"\($0)\"" }.joined(separator: ", ")
            text +=
                "  - {name: \(service.name), path: \(service.path), instances: [\(urls)], health: {\(service.health)}"
            text += service.more.isEmpty ? "}\n" : ", \(service.more)}\n"
        }
        if !rateLimit.isEmpty { text += "rateLimit: {\(rateLimit)}\n" }
        if !auth.isEmpty { text += "auth: {\(auth)}\n" }
        return text
    }
}

/// The title of a problem of RFC 9457.
func problemTitle(_ message: WireMessage) -> String? {
    guard message.value("Content-Type") == "application/problem+json" else { return nil }
    guard let start = message.text.firstRange(of: "\"title\":\"")?.upperBound else { return nil }
    return String(message.text[start...].prefix { $0 != "\"" })
}
