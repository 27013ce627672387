/* Single flight: what several threads ask for at a time is made by the first and shared by all,
 * for as long as somebody uses it. A failure is given to those who waited for it and then
 * forgotten. */
#ifndef TW_SRC_FLIGHT_H
#define TW_SRC_FLIGHT_H

#include <pthread.h>

#include "src/base/base.h"

typedef enum tw_flight_state {
    TW_FLIGHT_MAKING,
    TW_FLIGHT_READY,
    TW_FLIGHT_FAILED
} tw_flight_state;

typedef struct tw_flight {
    struct tw_flight *next;
    void *value; /* valid while READY */
    int users;
    tw_flight_state state;
    tw_status status; /* of a failure, with its sentence */
    char message[512];
    bool forgotten; /* no longer found */
    size_t key_size;
    unsigned char key[];
} tw_flight;

typedef struct tw_flights {
    const tw_allocator *allocator;
    void (*destroy)(void *user, void *value); /* called without the lock */
    void *user;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    tw_flight *first;
} tw_flights;

void tw_flights_init(tw_flights *flights, const tw_allocator *allocator,
                     void (*destroy)(void *user, void *value), void *user);
/* Nothing may be in use any more. */
void tw_flights_free(tw_flights *flights);

/* The value of a key (bytes that are compared as such), made by make(arg, &value) when there is
 * none.  make may take as long as it likes and ask other tables.  Errors: make's, MEMORY. */
tw_status tw_flights_get(tw_flights *flights, const void *key, size_t key_size,
                         tw_status (*make)(void *arg, void **value), void *arg, void **out);
/* The value of a key if it is there already, else NULL. */
void *tw_flights_find(tw_flights *flights, const void *key, size_t key_size);
/* Who asks for its key from now on gets another value; who has this one keeps it. */
void tw_flights_forget(tw_flights *flights, void *value);
/* Gives back what get or find returned; the last user's release destroys it. */
void tw_flights_release(tw_flights *flights, void *value);

#endif
