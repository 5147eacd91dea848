import Glibc
import LinuxIO
import Primitives
import TestSupport
import Testing

@Suite("A file that is of no use")
struct KeptConfigurationTests {
    private static let warning = "the configuration file is of no use: this process goes by the one that was in force"

    private static func crash(_ node: SluiceNode) throws {
        let pid = try node.number("pid")
        _ = kill(pid_t(pid), SIGKILL)
        try eventually("another serves") { (try? node.number("pid")) ?? pid != pid }
    }

    @Test("a process that takes a crashed one's place goes by the configuration that was in force")
    func crash() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let two = try scene.backend(named: "two")
            var file = File([one])
            file.gateway = "adminToken: a-secret-of-tests"
            let node = try scene.node(file, ["--supervise"])
            node.token = "a-secret-of-tests"
            var next = file
            next.services[0].urls = [two.url]
            try node.reload(next.yaml)
            #expect(try node.ask().text == "two")
            try node.write("gateway: {prot: 1}\n")
            for turn in 1...2 {
                try Self.crash(node)
                #expect(try node.ask().text == "two")
                #expect(try node.number("crashes") == turn)
                #expect(node.log.ranges(of: Self.warning).count == turn)
                #expect(node.log.contains("\(node.file):1:"))
                #expect(try node.admin("/readyz").text.contains("the last configuration was refused"))
                #expect(try node.admin("/api/config").text.contains("gateway.prot"))
            }
            // An upgrade still wants a file that is right, and one that is right counts.
            let admin = try #require(node.admin)
            let upgrade = try runSluice(["upgrade", "--admin", "\(admin)", "--token", "a-secret-of-tests"])
            #expect(upgrade.exit == 1 && upgrade.errors.contains("the old process goes on"))
            try node.reload(file.yaml)
            #expect(try node.ask().text == "one")
            #expect(!(try node.admin("/readyz").text.contains("was refused")))
            // What the new parent knows it has from the old one.
            #expect(try runSluice(["upgrade", "--admin", "\(admin)", "--token", "a-secret-of-tests"]).exit == 0)
            try node.write("gateway: {prot: 1}\n")
            try Self.crash(node)
            #expect(try node.ask().text == "one")
            #expect(try node.terminate() == 0)
        }
    }

    @Test("the same where the file is right and cannot be gone by")
    func taken() throws {
        try Scene.play { scene in
            let node = try scene.node(File([try scene.backend()]), ["--supervise"])
            let taken = try SilentListener()
            var file = File([try scene.backend()])
            file.listen = "\(taken.address)"
            try node.write(file.yaml)
            try Self.crash(node)
            #expect(try node.ask().status == 200)
            #expect(node.log.contains("another program listens there"))
            #expect(node.log.contains(Self.warning))
            #expect(try node.terminate() == 0)
        }
    }

    @Test("a pipe in its place is refused in time, and the next file is read")
    func pipe() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let two = try scene.backend(named: "two")
            let node = try scene.node(File([one]))
            try #require(unsafe unlink(node.file) == 0)
            try #require(unsafe mkfifo(node.file, 0o600) == 0)
            node.process.signal(SIGHUP)
            try eventually("it is refused") {
                try node.admin("/api/config").text.contains("a pipe that nobody has written")
            }
            #expect(try node.ask().text == "one")
            try node.reload(File([two]).yaml)
            #expect(try node.ask().text == "two")
        }
    }

    @Test("an access log may be a pipe, and nobody waits for its reader")
    func accessLog() throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            let node = try scene.node(file)
            let directory = try TemporaryDirectory()
            let pipe = "\(directory.path)/access"
            try #require(unsafe mkfifo(pipe, 0o600) == 0)
            let check = try runSluice(["check", "--config", node.file, "--set", "gateway.accessLog=\(pipe)"])
            #expect(check.exit == 0, "\(check.errors)")
            let log = file.yaml.replacing("accessLog: false", with: "accessLog: \"\(pipe)\"")
            file.gateway = ""
            try node.reload(log)
            #expect(!(try node.admin("/readyz").text.contains("was refused")))
            #expect(try node.ask("GET /early HTTP/1.1").status == 200)
            let reader = unsafe open(pipe, O_RDONLY | O_NONBLOCK)
            defer { close(reader) }
            #expect(try node.ask("GET /late HTTP/1.1").status == 200)
            var text: [UInt8] = []
            var piece = [UInt8](repeating: 0, count: 4_096)
            try eventually("both are there") {
                let n = unsafe read(reader, &piece, piece.count)
                if n > 0 { text += piece[..<n] }
                return text.count { $0 == UInt8(ascii: "\n") } == 2
            }
            let lines = String(decoding: text, as: UTF8.self)
            #expect(lines.contains("GET /early") && lines.contains("GET /late"))
        }
    }

    @Test(
        "the listeners for clients and operators change places, and addresses may overlap", arguments: [true, false],
        [true, false])
    func exchange(byUpgrade: Bool, overlaps: Bool) throws {
        try Scene.play { scene in
            var file = File([try scene.backend(named: "one")])
            var (a, b) = (try scene.freePort().port, try scene.freePort().port)
            file.workers = "2"
            file.gateway = "adminToken: a-secret-of-tests"
            (file.listen, file.admin) = ("127.0.0.1:\(a)", "127.0.0.1:\(b)")
            let node = try scene.node(file, ["--supervise"])
            try eventually("it may be upgraded") { node.log.contains("supervising") }
            // Not idle: it keeps the process of before, which must keep nobody else.
            let kept = try node.connect()
            try kept.send("GET / HTTP/1.1\r\n")
            if overlaps {
                file.listen = "0.0.0.0:\(a)"
                (a, b) = (b, a)
            } else {
                (file.listen, file.admin) = (file.admin, file.listen)
            }
            try node.write(file.yaml)
            if byUpgrade {
                node.process.signal(SIGUSR2)
            } else {
                node.process.signal(SIGHUP)
            }
            func ask(_ port: UInt16, _ path: String) throws -> String {
                let wire = try Wire.connect(to: SocketAddress(ip: .v4Loopback, port: port))
                try wire.send("GET \(path) HTTP/1.1\r\nHost: 127.0.0.1:\(port)\r\nConnection: close\r\n\r\n")
                return try wire.readResponse().text
            }
            func served() -> Bool {
                (try? ask(b, "/")) == "one" && (try? ask(a, "/healthz"))?.contains("\"status\":\"ok\"") ?? false
            }
            // In the moment of the change a connection to who listened there before may be reset.
            try eventually("clients are served there, and operators here") { (0..<30).allSatisfy { _ in served() } }
            #expect(!node.log.contains("another program"))
            try kept.send("Host: test\r\n\r\n")
            #expect(try kept.readResponse().text == "one")
            #expect(try node.terminate() == 0)
        }
    }
}
