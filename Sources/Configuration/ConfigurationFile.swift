import Foundation

/// Reads a configuration file: bounded, and as UTF-8 only.
enum ConfigurationFile {
    static func read(_ path: String) throws(ConfigurationError) -> String {
        let bytes: [UInt8]
        do {
            let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
            defer { try? handle.close() }
            var read: [UInt8] = []
            // A pipe gives its bytes in parts; a device such as /dev/zero never ends.
            while read.count <= Bounds.fileBytesMax,
                let part = try handle.read(upToCount: Bounds.fileBytesMax + 1 - read.count), !part.isEmpty
            {
                read.append(contentsOf: part)
            }
            bytes = read
        } catch {
            throw failure(path, reason(error))
        }
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

    private static func reason(_ error: any Error) -> String {
        switch (error as? CocoaError)?.code {
        case .fileReadNoSuchFile?, .fileNoSuchFile?: "there is no such file; name another with --config"
        case .fileReadNoPermission?: "no permission to read it; change its mode or owner"
        default: "can not be read as a file; name another with --config"
        }
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
