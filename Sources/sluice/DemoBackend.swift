import Admin
import ArgumentParser
import EventLoop
import FoundationEssentials
import LinuxIO
import Primitives

struct DemoBackend: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backend",
        abstract: "Run a small HTTP server to try a gateway with.",
        discussion: "It answers /health, and every other path with its message, port, host name and the path as JSON.")

    @Option(help: "The port to listen on.")
    var port: UInt16 = 8081

    @Option(help: "The address to listen on; all interfaces by default.")
    var address: String?

    private struct Health: Encodable {
        var status: String
        var port: String
    }

    private struct Echo: Encodable {
        var message: String
        var port: String
        var hostname: String
        var path: String
    }

    func run() throws {
        let signals = [Signals.terminate, Signals.interrupt]
        Signals.block(signals)
        do {
            let socket = try listen()
            let port = String(socket.address.port)
            let hostname = HostNames.local()
            let waker = try Waker()
            _ = OSThread(name: "backend") {
                do {
                    let loop = try Loop(waker: waker)
                    _ = try JSONServer(socket, loop: loop) { request in
                        request.path == "/health"
                            ? Self.answer(Health(status: "healthy", port: port))
                            : Self.answer(
                                Echo(message: "Hello from backend", port: port, hostname: hostname, path: request.path))
                    }
                    loop.run()
                } catch {
                    printError("sluice backend: \(error)")
                }
            }
            // Written through: a pipe or file sees the line now, not when a buffer is full.
            let output = try OutputFile.standardOutput()
            try OutputFile.write(output, Array("demo backend on \(socket.address)\n".utf8).span)
            _ = Signals.wait(signals)
        } catch {
            printError("sluice backend: cannot listen on port \(port): \(error.reason)")
            throw ExitCode(1)
        }
    }

    private func listen() throws(SystemError) -> ListeningSocket {
        if let address {
            guard let ip = address == "localhost" ? IPAddress.v4Loopback : IPAddress(address) else {
                throw .invalidAddress
            }
            return try ListeningSocket(SocketAddress(ip: ip, port: port), reusePort: false)
        }
        do throws(SystemError) {
            return try ListeningSocket(SocketAddress(ip: .v6Any, port: port), reusePort: false)
        } catch  where !error.isAddressInUse {
            return try ListeningSocket(SocketAddress(ip: .v4Any, port: port), reusePort: false)
        }
    }

    private static func answer(_ value: some Encodable) -> SmallAnswer {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else { return .problem(500, "This answer cannot be encoded") }
        return SmallAnswer(body: Array(data) + [0x0a])
    }
}
