// A real Redis in a time that the simulation plays: what is executed is executed by the server, and what it answers to
// `TIME` is the time of the simulation. Nothing else that a decision asks depends on the server's clock but when a key
// expires, which is put off. So a simulation depends on its seed alone, on a busy machine too, and runs as fast as it can.

import Foundation
import Hiredis
import LinuxIO
import Primitives
import TestSupport
import Testing

@testable import RateLimiting

/// What is still to happen, in the order of its times. Little is pending at any time: a list is quick enough.
struct Schedule<Event> {
    private var events: [(at: MonotonicTime, event: Event)] = []

    mutating func add(_ at: MonotonicTime, _ event: Event) {
        var place = events.count
        while place > 0, events[place - 1].at <= at { place -= 1 }
        events.insert((at, event), at: place)
    }

    mutating func next() -> (at: MonotonicTime, event: Event)? { events.popLast() }
}

/// What a machine sends, as a server receives it.
struct Sent: Sendable {
    let token: UInt64
    let bytes: [UInt8]
    /// Answers that will come.
    let answers: Int
    /// Whose transaction it is, and how many commands each has, where several share it.
    private(set) var parts: [(token: UInt64, commands: Int)] = []

    init(_ transmission: Transmission, of machine: borrowing WindowMachine) {
        token = transmission.token
        var writer = CommandWriter()
        switch transmission.form {
        case .command:
            machine.write(transmission, to: &writer)
            answers = 1
        case .transaction(let commands):
            writer.add("MULTI")
            writer.end()
            machine.write(transmission, to: &writer)
            writer.add("EXEC")
            writer.end()
            answers = commands + 2
        }
        bytes = writer.output.array
    }

    /// What leaves in one write: windows that follow each other share a transaction, as `Limiter` sends them.
    static func all(of machine: inout WindowMachine, at now: MonotonicTime) -> [Sent] {
        var list: [Sent] = []
        var sharing: [Transmission] = []
        func end(_ machine: borrowing WindowMachine) {
            if sharing.count > 1 {
                list.append(Sent(sharing: sharing, of: machine))
            } else {
                list += sharing.map { Sent($0, of: machine) }
            }
            sharing = []
        }
        while let transmission = machine.next(at: now) {
            if transmission.mayShare {
                sharing.append(transmission)
            } else {
                end(machine)
                list.append(Sent(transmission, of: machine))
            }
        }
        end(machine)
        return list
    }

    private init(sharing: [Transmission], of machine: borrowing WindowMachine) {
        token = sharing[0].token
        var writer = CommandWriter()
        writer.multi()
        writer.time()
        var commands = 1
        for transmission in sharing {
            guard case .transaction(let own) = transmission.form else { continue }
            machine.write(transmission, hasTime: true, to: &writer)
            parts.append((transmission.token, own))
            commands += own - 1
        }
        writer.time()
        commands += 1
        writer.exec()
        answers = commands + 2
        bytes = writer.output.array
    }

    /// Calls `body` with what each of those was answered whose it is.
    func forEachReply(_ received: [UInt8], _ body: (UInt64, Reply) throws -> Void) throws {
        let reply = try reply(received)
        guard !parts.isEmpty else { return try body(token, reply) }
        var start: Int?
        for (token, commands) in parts {
            start = reply.showPart(elements: commands, from: start)
            try body(token, reply)
        }
    }

    /// The last of its answers, which counts.
    func reply(_ received: [UInt8]) throws -> Reply {
        var reader = ReplyReader()
        reader.feed(received.span)
        for _ in 0..<answers { _ = try reader.next() }
        return reader.reply
    }
}

final class SimulatedServer {
    let server: RedisServer
    /// Since the simulation began.
    private(set) var now = MonotonicTime(nanoseconds: 0)
    /// What the server's clock reads when the simulation begins.
    private static let epoch: Int64 = 1_700_000_000_000_000

    /// How many simulations a test plays, each from another seed. With a real server one takes as long as thirty of those
    /// without.
    static let rounds = max(
        1, (ProcessInfo.processInfo.environment["SLUICE_SIMULATIONS"].flatMap { Int($0) } ?? 0) / 30)
    /// The seed of the first, to play one again.
    static let seed =
        ProcessInfo.processInfo.environment["SLUICE_SEED"].flatMap { UInt64($0) } ?? SystemClock.random64()

    init() throws { server = try RedisServer() }

    func advance(to time: MonotonicTime) { now = max(now, time) }

    /// What its clock was set forward by in all.
    var ahead = TimeSpan.zero
    /// What it said, and what a clock would have read that was never set.
    private var said: [RedisTime: RedisTime] = [:]

    var time: RedisTime { RedisTime(microseconds: Self.epoch + now.nanoseconds / 1_000) + ahead }

    /// When that was by a clock that was never set.
    func unset(_ time: RedisTime) -> RedisTime { said[time] ?? time }

    /// - Parameter database: stands for a server of its own.
    func socket(database: Int = 0) throws -> BlockingSocket {
        let socket = try BlockingSocket(unix: server.socketPath)
        try socket.send(Array("SELECT \(database)\r\n".utf8).span)
        _ = try socket.receive()
        return socket
    }

    /// Executes what was sent; returns all answers.
    func execute(_ sent: Sent, on socket: BlockingSocket) throws -> [UInt8] {
        // A thousand times as long.
        let text = String(decoding: sent.bytes, as: UTF8.self).replacing("$7\r\nPEXPIRE\r\n", with: "$6\r\nEXPIRE\r\n")
        try socket.send(Array(text.utf8).span)
        var reader = ReplyReader()
        var received: [UInt8] = []
        var left = sent.answers
        while left > 0 {
            let piece = try socket.receive()
            try #require(!piece.isEmpty, "the server closed the connection")
            received += piece
            reader.feed(piece.span)
            while left > 0, try reader.next() { left -= 1 }
        }
        guard text.contains("$4\r\nTIME\r\n") else { return received }
        if ahead != .zero { said[time] = time - ahead }
        return withOurTime(received)
    }

    /// How long what stands between two `TIME` of a transaction takes.
    var effort = TimeSpan.zero

    /// The answers to `TIME` are the arrays of two texts, the first of which has ten digits.
    private func withOurTime(_ received: [UInt8]) -> [UInt8] {
        let parts = String(decoding: received, as: UTF8.self).components(separatedBy: "\r\n*2\r\n$10\r\n")
        var text = parts[0]
        for (index, part) in parts.dropFirst().enumerated() {
            // Two texts: length, seconds, length, microseconds.
            let rest = part.split(separator: "\r\n", maxSplits: 3, omittingEmptySubsequences: false)
            guard rest.count == 4 else { return received }
            if index > 0 {
                advance(to: now + effort)
                if ahead != .zero { said[time] = time - ahead }
            }
            let (seconds, fraction) = ("\(time.microseconds / 1_000_000)", "\(time.microseconds % 1_000_000)")
            text += "\r\n*2\r\n$10\r\n\(seconds)\r\n$\(fraction.utf8.count)\r\n\(fraction)\r\n\(rest[3])"
        }
        return Array(text.utf8)
    }
}
