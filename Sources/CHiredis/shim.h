// The command formatter and the reply reader of hiredis; its connections and its memory tree stay unused.
#ifndef SLUICE_CHIREDIS_H
#define SLUICE_CHIREDIS_H
#include <hiredis/hiredis.h>
#include <hiredis/read.h>
#endif
