// The command formatter and the reply reader of hiredis; its connections and its memory tree stay unused.
#ifndef SLUICE_CHIREDIS_H
#define SLUICE_CHIREDIS_H
#include <hiredis/hiredis.h>
#include <hiredis/read.h>

// The count of an array's elements became size_t with hiredis 1.0.
#if HIREDIS_MAJOR >= 1
typedef size_t sluice_element_count;
#else
typedef int sluice_element_count;
#endif
#endif
