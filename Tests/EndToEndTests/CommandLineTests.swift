import Glibc
import LinuxIO
import Primitives
import TestSupport
import Testing

@Suite("The command line")
struct CommandLineTests {
    @Test("help and version say what there is")
    func help() throws {
        let help = try runSluice(["--help"])
        #expect(help.exit == 0)
        for word in ["run", "check", "backend", "backends", "nodes", "limits", "USAGE"] {
            #expect(help.output.contains(word))
        }
        let version = try runSluice(["--version"])
        #expect(version.exit == 0)
        #expect(version.output.split(separator: ".").count == 3)
        for command in ["run", "check", "backend", "backends", "nodes", "limits"] {
            #expect(try runSluice([command, "--help"]).exit == 0)
        }
        #expect(try runSluice(["fly"]).exit != 0)
        #expect(try runSluice(["run"]).exit != 0)
    }

    @Test("every error of a file is told with its place, at once, and ends with 1", arguments: ["check", "run"])
    func errors(command: String) throws {
        let directory = try TemporaryDirectory()
        let file = try directory.write(
            """
            gateway:
              prot: ":0"
              timeout: soon
            services:
              - name: a
                path: /a
                instances: ["https://secure.test"]
            """, to: "bad.yaml")
        let result = try runSluice([command, "--config", file])
        #expect(result.exit == 1)
        #expect(result.errors.contains("\(file):2:3: "))
        #expect(result.errors.contains("did you mean port?") || result.errors.contains("port"))
        #expect(result.errors.contains("\(file):3:12: "))
        #expect(result.errors.contains("\(file):7:17: "))
        let missing = try runSluice([command, "--config", "\(directory.path)/none.yaml"])
        #expect(missing.exit == 1)
        #expect(missing.errors.contains("none.yaml"))
    }

    @Test("a good file is ok, and keys come from the command line and the environment")
    func check() throws {
        let directory = try TemporaryDirectory()
        let file = try directory.write(
            "gateway: {port: \"${SLUICE_TEST_PORT:-:1}\"}\nservices: [{name: a, path: /a, instances: [\"http://localhost:1\"]}]\n",
            to: "good.yaml")
        let plain = try runSluice(["check", "--config", file])
        #expect(plain.exit == 0)
        #expect(plain.output.contains("ok"))
        #expect(plain.output.contains(":1\n"))
        #expect(try runSluice(["check", "-c", file], environment: ["SLUICE_TEST_PORT": ":2"]).output.contains(":2\n"))
        let set = try runSluice(["check", "--config", file, "--set", "gateway.port=127.0.0.2:3"])
        #expect(set.output.contains("127.0.0.2:3\n"))
        let wrong = try runSluice(["check", "--config", file, "--set", "gateway.porf=1"])
        #expect(wrong.exit == 1)
        #expect(wrong.errors.contains("porf"))
    }

    @Test("a port in use is an error that names the port and a remedy, with another node there too")
    func portInUse() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let first = try scene.node(File([backend]))
            for taken in [first.address, backend.address] {
                var file = File([backend])
                file.listen = taken.description
                let directory = try TemporaryDirectory()
                let path = try directory.write(file.yaml, to: "gateway.yaml")
                let second = try runSluice(["run", "--config", path])
                #expect(second.exit == 1)
                #expect(second.errors.contains("\(taken)"))
                #expect(second.errors.contains("--set gateway.port="))
            }
            var file = File([backend])
            let admin = try #require(first.admin)
            file.gateway = "logLevel: info"
            let directory = try TemporaryDirectory()
            let path = try directory.write(file.yaml, to: "gateway.yaml")
            let second = try runSluice(["run", "--config", path, "--set", "gateway.admin=\(admin)"])
            #expect(second.exit == 1)
            #expect(second.errors.contains("\(admin)"))
            #expect(second.errors.contains("--set gateway.admin="))
            #expect(try first.ask().status == 200)
        }
    }

    @Test(
        "SIGTERM and SIGINT let a request in flight finish, accept nothing more, and end with 0",
        arguments: [SIGTERM, SIGINT])
    func drain(signal: Int32) throws {
        try Scene.play { scene in
            let mayAnswer = Waiter()
            let backend = try scene.backend { exchange in
                if exchange.request.target == "/slow" { mayAnswer.wait() }
                try exchange.answer("done")
                return .keep
            }
            // However the test goes, the backend's thread must come to its end.
            defer { mayAnswer.signal() }
            let node = try scene.node(File([backend]))
            let idle = try node.connect()
            try idle.send("GET /quick HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try idle.readResponse().text == "done")
            let busy = try node.connect()
            try busy.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
            try eventually("it is in flight") { backend.requests.contains { $0.target == "/slow" } }
            node.process.signal(signal)
            #expect(try idle.endsHere())
            try eventually("nobody is accepted") { (try? node.connect().endsHere()) ?? true }
            #expect(node.process.exit == nil)
            mayAnswer.signal()
            let answer = try busy.readResponse()
            #expect(answer.text == "done")
            #expect(answer.value("Connection") == nil || answer.value("Connection") == "close")
            #expect(try node.process.waitForExit() == 0)
        }
    }

    @Test("an idle node ends at once, with 0, and with Redis it leaves the cluster")
    func idle() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            #expect(try scene.node(File([backend])).terminate() == 0)
            var file = File([backend])
            file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
            let node = try scene.node(file)
            try LimitTests.reached([node])
            #expect(try redis.client()("ZCARD", "sluice:nodes") == "1")
            #expect(try node.terminate() == 0)
            #expect(try redis.client()("ZCARD", "sluice:nodes") == "0")
        }
    }

    @Test("the demo backend answers its health and an echo")
    func demoBackend() throws {
        let process = try ChildProcess(try SluiceNode.binary(), ["backend", "--port", "0", "--address", "127.0.0.1"])
        defer { process.kill() }
        try eventually("it listens") { process.output.contains("\n") || process.exit != nil }
        let port = try #require(process.output.split(separator: ":").last.flatMap { UInt16($0.filter(\.isNumber)) })
        let wire = try Wire.connect(to: SocketAddress(ip: .v4Loopback, port: port))
        try wire.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(try wire.readResponse().text.contains("healthy"))
        try wire.send("GET /some/path?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        let echo = try wire.readResponse().text
        for part in ["\"path\":\"/some/path\"", "\"port\":\"\(port)\"", "\"hostname\":", "\"message\":"] {
            #expect(echo.contains(part))
        }
        process.signal(SIGTERM)
        #expect(try process.waitForExit() == 0)
    }
}
