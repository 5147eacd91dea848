// What of zlib the gzip encoder uses. deflateInit2 is a macro, which Swift does not see.
#ifndef SLUICE_CZLIB_H
#define SLUICE_CZLIB_H
#include <stdlib.h>
#include <zlib.h>

// A window of 16 KiB and hash tables for it: 128 KiB a stream, half of zlib's default, for about 1 % more bytes. The 16
// asks for gzip's header and checksum.
static inline z_stream *sluice_gzip_new(int level) {
    z_stream *stream = (z_stream *)calloc(1, sizeof(z_stream));
    if (stream && deflateInit2(stream, level, Z_DEFLATED, 14 + 16, 7, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(stream);
        return NULL;
    }
    return stream;
}

static inline void sluice_gzip_free(z_stream *stream) {
    deflateEnd(stream);
    free(stream);
}
#endif
