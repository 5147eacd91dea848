import LinuxIO
import Primitives

/// Reads a configuration file: bounded, and as UTF-8 only.
enum ConfigurationFile {
    /// - Parameter remedy: where another file would be named.
    static func read(
        _ path: String, remedy: String = "name another with --config"
    ) throws(ConfigurationError) -> String {
        let bytes = try bytes(of: path, remedy)
        if bytes.count > Bounds.fileBytesMax {
            throw failure(path, "larger than \(Bounds.fileBytesMax) bytes; is it the right file?")
        }
        let text = bytes.starts(with: [0xef, 0xbb, 0xbf]) ? bytes.dropFirst(3) : bytes[...]
        guard let string = String(validating: text, as: UTF8.self) else {
            let (line, column) = firstInvalid(in: text)
            throw ConfigurationError(
                place: .position(file: path, line: line, column: column), key: nil,
                message: "not UTF-8; save the file in that encoding")
        }
        return string
    }

    private static func failure(_ path: String, _ message: String) -> ConfigurationError {
        ConfigurationError(place: .file(path), key: nil, message: message)
    }

    /// A pipe is read too, from a shell for example (`--config <(…)`), but nobody waits for it as long as it likes: a node
    /// that reads its file again must come to say that it is of no use. Nothing else is a file.
    private static func bytes(of path: String, _ remedy: String) throws(ConfigurationError) -> [UInt8] {
        let found: Result<[UInt8], Refused>
        do throws(SystemError) {
            let file = try InputFile.openAtOnce(path: path)
            switch InputFile.kind(file) {
            case .file: found = .success(try bytes(of: file, until: nil) ?? [])
            case .pipe:
                let bytes = try bytes(of: file, until: SystemClock.monotonic() + pipeTime)
                found = bytes.map { .success($0) } ?? .failure(.pipe)
            case .directory: found = .failure(.directory)
            case .device, .socket, nil: found = .failure(.device)
            }
        } catch {
            throw failure(path, reason(error, remedy))
        }
        switch found {
        case .success(let bytes): return bytes
        case .failure(let refused): throw failure(path, "\(refused.rawValue); \(remedy)")
        }
    }

    private enum Refused: String, Error {
        case directory = "a directory, not a file"
        case device = "a device, not a file"
        case pipe = "a pipe that nobody has written to its end in time"
    }

    /// A shell that makes the text needs less.
    private static let pipeTime = TimeSpan.seconds(5)

    /// One byte more than there may be shows that there are too many. `nil` where the end has not come in time.
    private static func bytes(
        of file: borrowing Descriptor, until limit: MonotonicTime?
    ) throws(SystemError) -> [UInt8]? {
        var read: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 64 << 10)
        while read.count <= Bounds.fileBytesMax {
            if let limit {
                let left = max(.zero, limit - SystemClock.monotonic())
                guard awaitReadable([file.raw], atMost: Int32(clamping: left.milliseconds))[0] else { return nil }
            }
            let n = try InputFile.read(file, into: &piece)
            if n == 0 { break }
            read += piece[..<n]
        }
        return read
    }

    private static func reason(_ error: SystemError, _ remedy: String) -> String {
        if error.isMissing { return "there is no such file; \(remedy)" }
        if error.isForbidden { return "no permission to read it; change its mode or owner" }
        return "can not be read as a file; \(remedy)"
    }

    /// Where the first byte stands that is no part of a character.
    private static func firstInvalid(in bytes: ArraySlice<UInt8>) -> (line: Int, column: Int) {
        var line = 1
        var column = 1
        var decoder = UTF8()
        var rest = bytes.makeIterator()
        while case .scalarValue(let scalar) = decoder.decode(&rest) {
            if scalar == "\n" {
                line += 1
                column = 1
            } else {
                column += 1
            }
        }
        return (line, column)
    }
}
