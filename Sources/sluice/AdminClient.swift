// Asks a node's admin listener one thing and waits for the answer.

import Admin
import ArgumentParser
import Configuration
import EventLoop
import FoundationEssentials
import HTTP1
import LinuxIO
import Primitives

/// Where the admin listener is, for commands that ask it.
struct AdminOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The admin listener of any node.", valueName: "host:port"))
    var admin: String?

    @Option(
        name: .shortAndLong,
        help: "A node's configuration, for gateway.admin and gateway.adminToken, where --admin is not given.")
    var config: String?

    @Option(
        help: ArgumentHelp(
            "Allows writes, as gateway.adminToken does. Default: the environment's SLUICE_ADMIN_TOKEN, or what a node of the same user has left on this machine.",
            valueName: "token"))
    var token: String?

    @Flag(help: "Print the listener's own JSON.")
    var json = false

    /// The configuration, where one is given.
    func configuration() throws -> Configuration? {
        guard let config else { return nil }
        do throws(ConfigurationErrors) {
            return try Configuration.load(
                path: config, overrides: [], environment: ProcessInfo.processInfo.environment)
        } catch {
            printError(error.description)
            throw ExitCode(1)
        }
    }

    func client() throws -> AdminClient {
        var host = "127.0.0.1"
        var port: UInt16 = 9901
        var isTokenOfFile = false
        var token = token ?? ProcessInfo.processInfo.environment["SLUICE_ADMIN_TOKEN"]
        if let gateway = try configuration()?.gateway {
            if let address = gateway.admin {
                host = address.host.map { "\($0)" } ?? host
                port = address.port
            } else if admin == nil {
                throw ValidationError("\(config ?? "") has no gateway.admin: give --admin HOST:PORT")
            }
            isTokenOfFile = token == nil && gateway.adminToken != nil
            token = token ?? gateway.adminToken
        }
        if let admin { (host, port) = try Self.address(admin) }
        // A node on this machine has left one for programs of the same user.
        if token == nil, host == "localhost" || IPAddress(host)?.isLoopback ?? false {
            token = AdminToken.find(port: port)
        }
        let client = AdminClient(host: host, port: port, token: token)
        // A file says what the node is to be; it may be something else as yet.
        if let config {
            if admin == nil {
                client.remedies.unreachable =
                    "; where \(config) names a new gateway.admin, give the one in force: --admin HOST:PORT"
            }
            if isTokenOfFile {
                client.remedies.unauthorized =
                    "; where \(config) has a new gateway.adminToken, give the one in force: --token, or SLUICE_ADMIN_TOKEN"
            }
        }
        return client
    }

    /// The listener at an address, where there is no configuration.
    static func client(admin: String, token: String?) throws -> AdminClient {
        var options = AdminOptions()
        options.admin = admin
        options.config = nil
        options.token = token
        return try options.client()
    }

    private static func address(_ admin: String) throws -> (host: String, port: UInt16) {
        var text = admin[...]
        if text.hasPrefix("http://") { text = text.dropFirst(7) }
        while text.hasSuffix("/") { text = text.dropLast() }
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
            throw ValidationError("--admin \(admin): write HOST:PORT")
        }
        return (text[..<colon].filter { $0 != "[" && $0 != "]" }, port)
    }
}

final class AdminClient: StreamHandler {
    private let host: String
    private let port: UInt16
    private let token: String?
    private var request = ByteBuffer()
    private var input = ByteBuffer()
    private var outcome: Result<[UInt8], AdminError>?
    private var patience = AdminClient.timeout

    /// What may help, behind an error.
    var remedies = (unreachable: "", unauthorized: "")

    /// A node answers at once or not at all; where it may take its time, whoever asks knows.
    static let timeout = TimeSpan.seconds(5)
    /// Far more than the backends of any cluster take.
    private static let answerBytesMax = 64 << 20

    init(host: String, port: UInt16, token: String?) {
        self.host = host
        self.port = port
        self.token = token
    }

    struct AdminError: Error, CustomStringConvertible {
        let description: String
        /// The listener has answered, and this is why it does not do it.
        var isAnswer = false
    }

    /// The body of a good answer.
    func ask(
        _ method: String, _ target: String, body: [UInt8] = [], within patience: TimeSpan = AdminClient.timeout
    ) throws -> [UInt8] {
        self.patience = patience
        request.clear()
        request.append("\(method) \(target) HTTP/1.1\r\nHost: \(host):\(port)\r\nConnection: close\r\n")
        if let token { request.append("Authorization: Bearer \(token)\r\n") }
        if method == "POST" { request.append("Content-Length: \(body.count)\r\n") }
        request.append("\r\n")
        request.append(body)
        input.clear()
        outcome = nil
        let place = "the admin listener at \(host):\(port)"
        do {
            let loop = try Loop(waker: try Waker())
            for address in try HostNames.resolve(host) {
                outcome = nil
                let stream = try loop.connect(to: .tcp(SocketAddress(ip: address, port: port)), handler: self)
                stream.deadline = loop.now + patience
                while outcome == nil { loop.turn() }
                stream.close()
                if case .success(let body) = outcome { return body }
            }
        } catch {
            throw AdminError(description: "\(place): \(error)")
        }
        guard case .failure(let error) = outcome else { throw AdminError(description: "\(place): no address") }
        throw AdminError(description: "\(place): \(error)", isAnswer: error.isAnswer)
    }

    private func fail(_ reason: String, isAnswer: Bool = false) {
        if outcome == nil { outcome = .failure(AdminError(description: reason, isAnswer: isAnswer)) }
    }

    func streamConnected(_ stream: Stream) { send(request, stream) }

    private func send(_ buffer: borrowing ByteBuffer, _ stream: Stream) {
        if case .failed(let error) = stream.send(buffer.bytes) { fail(error.reason) }
    }

    func streamReadable(_ stream: Stream) {
        while outcome == nil, stream.mayHaveBytes {
            switch stream.receive(into: &input, room: 64 << 10) {
            case .bytes: if input.count > Self.answerBytesMax { fail("an answer without an end") }
            case .wouldBlock: return
            case .endOfFile: finish(input)
            case .failed(let error): fail(error.reason)
            }
        }
    }

    /// The listener ends the connection behind its answer.
    private func finish(_ buffer: borrowing ByteBuffer) {
        var head = ResponseHead()
        let bytes = buffer.bytes
        guard case .complete(let length) = head.parse(bytes, limits: HeadLimits()) else {
            fail("no answer that could be understood")
            return
        }
        var body: [UInt8] = []
        body.reserveCapacity(bytes.count - length)
        for i in length..<bytes.count { body.append(bytes[i]) }
        if (200...299).contains(head.status) {
            outcome = .success(body)
        } else {
            let remedy = head.status == 401 ? remedies.unauthorized : ""
            fail("\(head.status) \(Self.title(body) ?? "")\(remedy)", isAnswer: true)
        }
    }

    private struct Problem: Decodable { var title: String }

    private static func title(_ body: [UInt8]) -> String? {
        (try? JSONDecoder().decode(Problem.self, from: Data(body)))?.title
    }

    func streamDrained(_ stream: Stream) {}
    func streamFailed(_ stream: Stream, _ error: SystemError) {
        fail(error.isConnectionRefused ? "\(error.reason)\(remedies.unreachable)" : error.reason)
    }
    func streamDeadlinePassed(_ stream: Stream) { fail("no answer within \(patience)") }
}

/// Columns as wide as their widest cell.
func table(_ rows: [[String]]) -> String {
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
    return rows.map { row in
        var line = ""
        for (column, cell) in row.enumerated() {
            line += cell
            if column + 1 < row.count { line += String(repeating: " ", count: widths[column] - cell.count + 2) }
        }
        return line
    }.joined(separator: "\n")
}
