import Glibc
import LinuxIO
import Primitives
import Synchronization
import TestSupport
import Testing

@Suite("Reload")
struct ReloadTests {
    static let token = "a-reloaders-secret"

    private func file(_ services: [File.Service]) -> File {
        var file = File(services)
        file.gateway = "adminToken: \(Self.token)"
        return file
    }

    private func command(_ node: SluiceNode) throws -> (exit: Int32, output: String, errors: String) {
        let admin = try #require(node.admin)
        return try runSluice(["reload", "--admin", "\(admin)"], environment: ["SLUICE_ADMIN_TOKEN": Self.token])
    }

    @Test("another file counts for the next request, on a connection that stays open")
    func swaps() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let two = try scene.backend(named: "two")
            let node = try scene.node(file([File.Service(urls: [one.url])]))
            let client = try node.connect()
            try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try client.readResponse().text == "one")
            var changed = file([
                File.Service(urls: [two.url]), File.Service(name: "more", path: "/more", urls: [one.url]),
            ])
            changed.workers = "2"
            let status = try node.reload(changed.yaml)
            #expect(status.contains("\"version\":2"))
            #expect(status.contains("\"needRestart\":[\"gateway.workers\"]"))
            for (path, answer) in [("/", "two"), ("/more/a", "one"), ("/", "two")] {
                try client.send("GET \(path) HTTP/1.1\r\nHost: test\r\n\r\n")
                #expect(try client.readResponse().text == answer)
            }
            try node.reload(file([File.Service(path: "/only", urls: [one.url])]).yaml)
            try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try client.readResponse().status == 404)
            #expect(try node.ask("GET /only HTTP/1.1").text == "one")
        }
    }

    @Test("a request in flight ends with the configuration that it began with")
    func inFlight() throws {
        try Scene.play { scene in
            let entered = Waiter()
            let leave = Waiter()
            let slow = try scene.backend {
                entered.signal()
                leave.wait()
                try $0.answer("slow")
                return .keep
            }
            let other = try scene.backend(named: "other")
            let node = try scene.node(file([File.Service(urls: [slow.url])]))
            let client = try node.connect()
            try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            entered.wait()
            try node.reload(file([File.Service(name: "new", urls: [other.url])]).yaml)
            #expect(try node.ask().text == "other")
            leave.signal()
            #expect(try client.readResponse().text == "slow")
            try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try client.readResponse().text == "other")
        }
    }

    @Test("a file with errors changes nothing, and says so in the log, in the API and to the command")
    func badFile() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let good = file([File.Service(urls: [one.url])])
            let node = try scene.node(good)
            let fine = try command(node)
            #expect(fine.exit == 0)
            #expect(fine.output.hasPrefix("version 2 is in force"))
            try node.write(good.yaml.replacing("instances", with: "instanzes"))
            let refused = try command(node)
            #expect(refused.exit == 1)
            let error = try #require(refused.errors.split(separator: "\n").first { $0.contains("instanzes") })
            #expect(error.hasPrefix("\(node.file):3:"))
            #expect(error.hasSuffix(": services[0].instanzes: unknown key (did you mean services[0].instances?)"))
            #expect(node.log.contains(" error \(error)"))
            let status = try node.admin("/api/config").text
            #expect(status.contains("\"failures\":1"))
            #expect(status.contains("\"errors\":[\"\(node.file):3:"))
            #expect(status.contains("\"version\":2"))
            #expect(try node.ask().text == "one")
            // What only shows in use is an error too: nobody may listen there.
            let taken = try SilentListener()
            var busy = good
            busy.listen = "127.0.0.1:\(taken.address.port)"
            try node.write(busy.yaml)
            let blocked = try command(node)
            #expect(blocked.exit == 1)
            #expect(blocked.errors.contains("cannot listen on 127.0.0.1:\(taken.address.port) (gateway.port)"))
            try node.write(good.yaml)
            #expect(try command(node).exit == 0)
            #expect(!(try node.admin("/api/config").text.contains("lastError")))
        }
    }

    @Test("only who has the token may ask for a reload, and a node without an admin listener hears a signal")
    func allowed() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let node = try scene.node(file([File.Service(urls: [one.url])]))
            let admin = try #require(node.admin)
            let refused = try runSluice(
                ["reload", "--admin", "\(admin)"], environment: ["SLUICE_ADMIN_TOKEN": "wrong"])
            #expect(refused.exit == 1)
            #expect(refused.errors.contains("401"))
            #expect(try node.admin("/api/config").text.contains("\"answered\":0"))
            let signalled = try runSluice(["reload", "--pid", "\(node.process.pid)"])
            #expect(signalled.exit == 0)
            try eventually("it has read the file") {
                try node.admin("/api/config").text.contains("\"answered\":1")
            }
            #expect(node.log.contains("reason=signal"))
            // SIGHUP would end another program.
            let other = try ChildProcess("/usr/bin/sleep", ["60"])
            defer { other.kill() }
            let wrong = try runSluice(["reload", "--pid", "\(other.pid)"])
            #expect(wrong.exit == 1 && other.exit == nil)
            let said = "process \(other.pid) is no `sluice run`: /usr/bin/sleep 60"
            #expect(wrong.errors.contains(said), "\(wrong.errors)")
            other.kill()
            let gone = try runSluice(["reload", "--pid", "0"])
            #expect(gone.exit == 1 && gone.errors.contains("process 0 is not there"), "\(gone.errors)")
        }
    }

    @Test("tunnels of routes that stay live on, those of a backend that goes end within their grace")
    func tunnels() throws {
        try Scene.play { scene in
            let stays = try TunnelScene.backend(scene, greeting: "s") { _, wire in
                while true { try wire.send(try wire.read(1)) }
            }
            let goes = try TunnelScene.backend(scene, greeting: "g") { _, wire in
                while true { try wire.send(try wire.read(1)) }
            }
            func services(_ urls: [String]) -> [File.Service] {
                [File.Service(urls: urls, more: "timeouts: {tunnelGrace: 200ms}")]
            }
            let node = try scene.node(file(services([stays.url, goes.url])))
            let tunnels = try (0..<4).map { _ in
                let tunnel = try TunnelScene.open(node)
                return (tunnel, stays: try tunnel.read(1) == Array("s".utf8))
            }
            #expect(tunnels.count { $0.stays } == 2)
            var more = services([goes.url, stays.url])
            more.append(File.Service(name: "more", path: "/more", urls: [goes.url]))
            try node.reload(file(more).yaml)
            for (tunnel, _) in tunnels {
                try tunnel.send("a")
                #expect(try tunnel.read(1) == Array("a".utf8))
            }
            try node.reload(file(services([stays.url])).yaml)
            for (tunnel, stays) in tunnels {
                if stays {
                    try tunnel.send("b")
                    #expect(try tunnel.read(1) == Array("b".utf8))
                } else {
                    #expect(try tunnel.readToEnd() == [])
                }
            }
        }
    }

    @Test("what is in flight at a backend still counts when others come and go: who comes is the least busy")
    func counters() throws {
        try Scene.play { scene in
            let backends = try (0..<3).map { _ in try TunnelScene.echo(scene) }
            func services(_ urls: [String]) -> [File.Service] {
                [File.Service(urls: urls, more: "strategy: least_connections")]
            }
            let node = try scene.node(file(services(backends[..<2].map(\.url))))
            var tunnels = try (0..<6).map { _ in try TunnelScene.open(node) }
            func counts() throws -> [Int] {
                try backends.map { backend in
                    let row = try node.row(of: backend.url)
                    guard let start = row.firstRange(of: "\"inFlight\":")?.upperBound else { return -1 }
                    return Int(row[start...].prefix { $0.isNumber }) ?? -1
                }
            }
            #expect(try counts() == [3, 3, -1])
            try node.reload(file(services([backends[2].url, backends[1].url, backends[0].url])).yaml)
            #expect(try counts() == [3, 3, 0])
            for _ in 0..<3 { tunnels.append(try TunnelScene.open(node)) }
            #expect(try counts() == [3, 3, 3])
            tunnels.removeAll()
            try eventually("all have ended") { try counts() == [0, 0, 0] }
        }
    }

    @Test("a node moves to another address, and who waits at the old one is served")
    func moves() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let node = try scene.node(file([File.Service(urls: [one.url])]))
            let old = node.address
            let open = try node.connect()
            try open.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try open.readResponse().text == "one")
            // Stopped, it accepts nothing: the connection waits in the kernel's queue.
            try node.process.suspend()
            let waiting = try node.connect()
            try waiting.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            var moved = file([File.Service(urls: [one.url])])
            moved.listen = "\(try scene.freePort().address)"
            try node.write(moved.yaml)
            node.process.signal(SIGHUP)
            node.process.signal(SIGCONT)
            #expect(try waiting.readResponse().text == "one")
            try eventually("it listens elsewhere") {
                try node.admin("/api/nodes").text.contains("\"address\":\"\(moved.listen)\"")
            }
            try open.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try open.readResponse().text == "one")
            let port = try #require(UInt16(moved.listen.split(separator: ":")[1]))
            let wire = try Wire.connect(to: SocketAddress(ip: .v4Loopback, port: port))
            try wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try wire.readResponse().text == "one")
            try eventually("nobody listens at the old address") { (try? Wire.connect(to: old)) == nil }
        }
    }

    @Test("a file that is watched is read again when another takes its place, also behind a link that turns")
    func watched() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let two = try scene.backend(named: "two")
            var first = file([File.Service(urls: [one.url])])
            first.gateway += ", watchConfig: true"
            let node = try scene.node(first)
            #expect(try node.ask().text == "one")
            let second = first.yaml.replacing(one.url, with: two.url)
            try node.write(second)
            try eventually("the new file counts") { try node.ask().text == "two" }
            try eventually("the log says so") { node.log.contains("reason=file") }
            // As Kubernetes mounts a map: the file is a link through a directory that is a link, which is replaced.
            let folder = String(node.file[..<(node.file.lastIndex(of: "/") ?? node.file.startIndex)])
            for (name, text) in [("a", second), ("b", first.yaml)] {
                #expect(unsafe mkdir("\(folder)/\(name)", 0o755) == 0)
                let path = "\(folder)/\(name)/gateway.yaml"
                let descriptor = try OutputFile.append(path: path)
                try OutputFile.write(descriptor, Array(text.utf8).span)
            }
            #expect(unsafe symlink("a", "\(folder)/data") == 0)
            #expect(unsafe symlink("data/gateway.yaml", "\(folder)/link") == 0)
            #expect(unsafe rename("\(folder)/link", node.file) == 0)
            #expect(unsafe symlink("b", "\(folder)/data.new") == 0)
            #expect(unsafe rename("\(folder)/data.new", "\(folder)/data") == 0)
            try eventually("the file behind the link counts") { try node.ask().text == "one" }
        }
    }

    @Test("a limit that changes does not forget who has used it up")
    func buckets() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            func limited(_ limit: Int) -> String {
                var file = self.file([File.Service(urls: [one.url])])
                file.rateLimit = "policies: [{name: hour, limit: \(limit), window: 1h}]"
                return file.yaml
            }
            var file = self.file([File.Service(urls: [one.url])])
            file.rateLimit = "policies: [{name: hour, limit: 3, window: 1h}]"
            let node = try scene.node(file)
            #expect(try (0..<4).map { _ in try node.ask().status } == [200, 200, 200, 429])
            try node.reload(limited(2))
            #expect(try node.ask().status == 429)
            #expect(try node.ask().value("RateLimit-Policy") == "\"hour\";q=2;w=3600")
        }
    }

    @Test(
        "a window in Redis goes along: who has used up a limit has nothing of a smaller one, and the rest of a larger one",
        arguments: [(changed: 3, more: 0), (changed: 8, more: 3), (changed: 5, more: 0)])
    func windows(changed: Int, more: Int) throws {
        try Scene.play { scene in try playWindows(scene, changed: changed, more: more) }
    }

    private func limited(_ limit: Int, _ backend: RecordingBackend, _ redis: RedisServer) -> File {
        var made = file([File.Service(urls: [backend.url])])
        made.workers = "2"
        made.rateLimit =
            "redisURL: \"redis://127.0.0.1:\(redis.port)\", timeout: 5s, "
            + "policies: [{name: hour, limit: \(limit), window: 1h}]"
        return made
    }

    private func statuses(_ node: SluiceNode, _ count: Int, from source: IPAddress? = nil) throws -> [Int] {
        var all: [Int] = []
        for _ in 0..<count { all.append(try node.ask(from: source).status) }
        return all
    }

    private func playWindows(_ scene: Scene, changed: Int, more: Int) throws {
        let redis = try scene.redis()
        let one = try scene.backend(named: "one")
        let node = try scene.node(limited(5, one, redis))
        try LimitTests.reached([node])
        // Another client's window stays untouched until it comes.
        let other = IPAddress("127.0.0.9")
        #expect(try statuses(node, 2, from: other) == [200, 200])
        #expect(try statuses(node, 6) == [200, 200, 200, 200, 200, 429])
        try node.reload(limited(changed, one, redis).yaml)
        #expect(try statuses(node, more + 2) == Array(repeating: 200, count: more) + [429, 429])
        #expect(try statuses(node, changed, from: other).count { $0 == 200 } == changed - 2)
        let key = "rate_limit:hour:\(changed)/1h:ip:127.0.0.1"
        #expect(try redis.client()("ZCARD", key).contains("\(min(changed, 5 + more))"))
    }

    @Test("reloads under load fail no request, close no tunnel and leave nothing behind")
    func underLoad() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let two = try scene.backend(named: "two")
            let echo = try TunnelScene.echo(scene)
            func yaml(_ turn: Int) -> String {
                var file = self.file([
                    File.Service(
                        name: "main", path: "/", urls: turn % 2 == 0 ? [one.url, two.url] : [two.url],
                        more: "timeouts: {response: \(10 + turn % 3)s}"),
                    File.Service(name: "chat", path: "/chat", urls: [echo.url]),
                ])
                file.workers = "2"
                return file.yaml
            }
            let node = try scene.node(file([File.Service(urls: [one.url])]))
            try node.reload(yaml(0))
            let tunnels = try (0..<8).map { _ in try TunnelScene.open(node) }
            let stop = Atomic<Bool>(false)
            let failed = Mutex<[String]>([])
            let served = Atomic<Int>(0)
            let address = node.address
            let clients = (0..<4).map { _ in
                OSThread(name: "client") {
                    do {
                        let wire = try Wire.connect(to: address)
                        while !stop.load(ordering: .relaxed) {
                            try wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                            let answer = try wire.readResponse()
                            guard answer.status == 200 else { throw ProcessError("status \(answer.status)") }
                            served.add(1, ordering: .relaxed)
                        }
                    } catch {
                        failed.withLock { $0.append("\(error)") }
                    }
                }
            }
            for turn in 0..<20 { try node.reload(yaml(turn)) }
            let before = node.process.descriptorCount
            for turn in 0..<60 { try node.reload(yaml(turn)) }
            // Connections to backends come and go with the load.
            #expect(node.process.descriptorCount <= before + 16)
            stop.store(true, ordering: .relaxed)
            for client in clients { client.join() }
            #expect(failed.withLock { $0 } == [])
            #expect(served.load(ordering: .relaxed) > 100)
            for tunnel in tunnels {
                try tunnel.send("x")
                #expect(try tunnel.read(1) == Array("x".utf8))
            }
        }
    }
}
